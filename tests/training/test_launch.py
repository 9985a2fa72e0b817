"""The start of a container: who its peers are, and a work folder that comes from S3 and goes back there."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from tests.conftest import REGION
from tests.waiting import PATIENCE_S, wait_until
from training import launch
from training.launch import Peers, command, local_work, run


@pytest.mark.parametrize(
    ("environment", "peers"),
    [
        ({}, Peers(1, 0, "127.0.0.1")),
        ({"AWS_BATCH_JOB_NUM_NODES": "2", "AWS_BATCH_JOB_NODE_INDEX": "0"}, Peers(2, 0, "127.0.0.1")),
        (
            {
                "AWS_BATCH_JOB_NUM_NODES": "2",
                "AWS_BATCH_JOB_NODE_INDEX": "1",
                "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.7",
            },
            Peers(2, 1, "10.0.0.7"),
        ),
        (
            {"MLP_NODES": "3", "JOB_COMPLETION_INDEX": "2", "MLP_MASTER": "job-worker-0-0.job"},
            Peers(3, 2, "job-worker-0-0.job"),
        ),
    ],
)
def test_each_backend_tells_of_the_peers_in_its_way(environment, peers, tmp_path):
    assert Peers.find(environment, tmp_path / "none") == peers


def test_sagemaker_tells_of_the_peers_in_a_file(tmp_path):
    file = tmp_path / "resourceconfig.json"
    file.write_text(json.dumps({"current_host": "algo-2", "hosts": ["algo-2", "algo-1"]}))
    assert Peers.find({}, file) == Peers(2, 1, "algo-1")


def test_one_process_needs_no_torchrun():
    assert command(Peers(), 1, ["train", "digits"]) == [sys.executable, "-m", "training", "train", "digits"]


def test_several_processes_or_instances_run_under_torchrun():
    for peers, processes in ((Peers(), 4), (Peers(2, 1, "10.0.0.7"), 1)):
        found = command(peers, processes, ["train", "digits"])
        assert found[1:3] == ["-m", "torch.distributed.run"]
        assert f"--nnodes={peers.nodes}" in found
        assert f"--node-rank={peers.rank}" in found
        assert f"--nproc-per-node={processes}" in found
        assert f"--master-addr={peers.master}" in found
        assert found[-4:] == ["-m", "training", "train", "digits"]


def test_torchrun_takes_the_command(tmp_path):
    """The real torchrun, with a module of the test's in place of the pipeline's."""
    (tmp_path / "training.py").write_text("import os; open(os.environ['RANK'], 'w').write(os.environ['WORLD_SIZE'])")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command(Peers(), 2, []), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == ["2", "2"]


@pytest.fixture
def s3(emulated_aws):
    client = boto3.client("s3")
    client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    client.put_object(Bucket="lake", Key="_work/digits/outputs.json", Body=b"{}")
    client.put_object(Bucket="lake", Key="_work/digits/digits/split/done", Body=b"1")
    client.put_object(Bucket="lake", Key="_work/digits2/other", Body=b"another model's")
    return client


TOLD = {"MLP_WORK": "s3://lake/_work/digits", "MLP_OUTPUTS": "s3://lake/_work/digits/outputs.json", "OTHER": "as it is"}


def keys(s3):
    return {item["Key"] for item in s3.list_objects_v2(Bucket="lake")["Contents"]}


def test_the_work_folder_is_fetched_and_what_changes_is_brought_back(s3):
    before = s3.head_object(Bucket="lake", Key="_work/digits/digits/split/done")["LastModified"]
    step = (
        "import os, pathlib; work = pathlib.Path(os.environ['MLP_WORK']);"
        "assert (work / 'digits/split/done').read_text() == '1';"
        "assert pathlib.Path(os.environ['MLP_OUTPUTS']).read_text() == '{}';"
        "assert not (work.parent / 'digits2').exists();"
        "(work / 'digits/train').mkdir(); (work / 'digits/train/model.onnx').write_text('weights')"
    )
    with local_work(os.environ | TOLD, keep=True) as environment:
        assert environment["OTHER"] == "as it is"
        assert run([sys.executable, "-c", step], environment) == 0
    assert s3.get_object(Bucket="lake", Key="_work/digits/digits/train/model.onnx")["Body"].read() == b"weights"
    assert s3.head_object(Bucket="lake", Key="_work/digits/digits/split/done")["LastModified"] == before
    assert not os.path.exists(environment["MLP_WORK"])


def test_checkpoints_are_brought_back_while_the_step_runs(s3, monkeypatch):
    monkeypatch.setattr(launch, "SECONDS_BETWEEN_UPLOADS", 0.05)
    with local_work(dict(TOLD), keep=True) as environment:
        with open(os.path.join(environment["MLP_WORK"], "checkpoint"), "w") as file:
            file.write("epoch 1")
        wait_until(lambda: "_work/digits/checkpoint" in keys(s3))


def test_only_one_instance_brings_anything_back(s3):
    before = keys(s3)
    with local_work(dict(TOLD), keep=False) as environment:
        open(os.path.join(environment["MLP_WORK"], "checkpoint"), "w").close()
    assert keys(s3) == before


def test_a_failed_step_leaves_its_checkpoint_and_its_status(s3):
    step = "import os, sys; open(os.environ['MLP_WORK'] + '/checkpoint', 'w').write('epoch 3'); sys.exit(3)"
    with local_work(os.environ | TOLD, keep=True) as environment:
        assert run([sys.executable, "-c", step], environment) == 3
    assert s3.get_object(Bucket="lake", Key="_work/digits/checkpoint")["Body"].read() == b"epoch 3"


def test_a_local_work_folder_is_left_to_sagemaker():
    told = {"MLP_WORK": "/opt/ml/checkpoints"}
    with local_work(told, keep=True) as environment:
        assert environment == told


def test_the_signal_of_a_spot_interruption_reaches_the_step(s3, tmp_path):
    """A whole container, as a process of its own: it is told to stop, and its checkpoint is on S3 before it has."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("")
    (tmp_path / "training" / "launch.py").write_bytes(Path(launch.__file__).read_bytes())
    (tmp_path / "training" / "__main__.py").write_text(
        "import os, signal, sys, time\n"
        "def stop(*_):\n"
        "    open(os.environ['MLP_WORK'] + '/checkpoint', 'w').write('epoch 7')\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('running', flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = os.environ | TOLD | {"PYTHONPATH": str(tmp_path)}
    arguments = [sys.executable, "-m", "training.launch", "train", "digits"]
    with subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as container:
        assert container.stdout.readline() == "running\n"
        container.send_signal(signal.SIGTERM)
        assert container.wait(PATIENCE_S) == 143
    assert s3.get_object(Bucket="lake", Key="_work/digits/checkpoint")["Body"].read() == b"epoch 7"
