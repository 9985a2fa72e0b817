"""The training loop on networks of a few weights: resumption, divergence, full disks, early stopping, schedule."""

import math
import resource
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from contract.errors import PlatformError
from contract.training import Training
from training.checkpoint import Checkpoints, identity
from training.data import Rows
from training.loop import DivergedError, Stopped, Watch, fit, validation
from training.tasks import loss as loss_of
from training.workers import Workers

CPU = Workers(torch.device("cpu"))


class Network(nn.Module):
    """Has what a resumption could get wrong: dropout's random numbers and the running means of a normalisation."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 1)
        )

    def forward(self, features):
        return self.layers(features).squeeze(1)


def network(width=8):
    torch.manual_seed(0)
    return Network(width)


@pytest.fixture(scope="module")
def rows():
    features = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    return Rows(features, (features @ [1, -2, 0.5, 0]).astype(np.float32))


def settings(**changes):
    return Training(**{"epochs": 4, "batch_size": 16, "learning_rate": 0.05, "checkpoint_seconds": 0} | changes)


def squared(rows):
    return loss_of("regression", torch.from_numpy(rows.targets), 1.0)


def measured(rows):
    loss = squared(rows)
    return validation(rows, lambda outputs: loss(outputs, torch.arange(len(rows))), CPU.device)


def same(one, two):
    one, two = one.state_dict(), two.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


def checkpoints(folder, net, rows, given=None):
    return Checkpoints(folder, identity(net, given or settings(), rows))


def after(calls):
    """A question that is answered with yes when it has been asked so often."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) >= calls


@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.parametrize("steps", [1, 3, 7, 9, 14, 27], ids=lambda steps: f"after {steps} of 28 steps")
def test_a_training_that_was_stopped_ends_with_the_weights_of_one_that_was_not(rows, tmp_path, steps, patience):
    """An epoch has 7 steps: 7 and 14 are between two epochs, the others amid one."""
    given = settings(patience=patience)
    whole, parts = network(), network()
    expected = fit(whole, given, rows, squared(rows), CPU, measured(rows))
    kept = checkpoints(tmp_path, parts, rows, given)
    with pytest.raises(Stopped):
        fit(parts, given, rows, squared(rows), CPU, measured(rows), Watch(kept, stop=after(steps)))

    torch.manual_seed(99)  # another process has other random numbers
    resumed = network()
    history = fit(
        resumed, given, rows, squared(rows), CPU, measured(rows), Watch(checkpoints(tmp_path, resumed, rows, given))
    )
    assert same(resumed, whole)
    assert [(each.loss, each.validation_loss) for each in history] == [
        (each.loss, each.validation_loss) for each in expected
    ]


def test_a_training_that_died_goes_on_after_the_last_epoch_that_was_kept(rows, tmp_path):
    whole, parts, resumed = network(), network(), network()
    fit(whole, settings(), rows, squared(rows), CPU)

    def die(epoch):
        if epoch.number == 3:
            raise MemoryError

    with pytest.raises(MemoryError):
        fit(parts, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(tmp_path, parts, rows), die))
    told = []
    fit(resumed, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(tmp_path, resumed, rows), told.append))
    assert [epoch.number for epoch in told] == [3, 4]
    assert same(resumed, whole)


def test_a_training_that_had_ended_is_not_done_again(rows, tmp_path):
    first, again = network(), network()
    fit(first, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(tmp_path, first, rows)))
    told = []
    history = fit(
        again, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(tmp_path, again, rows), told.append)
    )
    assert (told, len(history)) == ([], 4)
    assert same(again, first)


def test_checkpoints_are_as_far_apart_as_the_settings_say(rows, tmp_path):
    def written(seconds):
        given, net, times = settings(checkpoint_seconds=seconds), network(), set()
        kept = checkpoints(tmp_path / str(seconds), net, rows, given)

        def look(_):
            if kept.file.exists():
                times.add(kept.file.stat().st_mtime_ns)
            time.sleep(0.02)

        fit(net, given, rows, squared(rows), CPU, watch=Watch(kept, look))
        return len(times)

    assert written(0) == 3  # one after each epoch; nobody looks after the last
    assert written(1000) == 0


def one_cycle(step, steps, peak):
    """Learning rate by the article's formula with PyTorch's constants: 30% up from a 25th, then down to nearly none."""
    lowest, top = peak / 25, 0.3 * steps - 1
    start, end, share = (
        (lowest, peak, step / top) if step <= top else (peak, lowest / 1e4, (step - top) / (steps - 1 - top))
    )
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def test_the_learning_rate_follows_the_one_cycle_schedule(rows):
    history = fit(network(), settings(epochs=50, batch_size=100), rows, squared(rows), CPU)
    rates = [epoch.learning_rate for epoch in history]  # an epoch of one step
    assert rates == pytest.approx([one_cycle(step, 50, 0.05) for step in range(50)], rel=1e-5)
    assert max(rates) == pytest.approx(0.05)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [1, 5, 10, 28])
def test_a_loss_that_is_no_number_stops_the_training_and_names_step_and_learning_rate(rows, bad, place):
    plain, calls = squared(rows), iter(range(1, 1000))

    def breaks(outputs, chosen):
        return plain(outputs, chosen) * (bad if next(calls) == place else 1)

    with pytest.raises(DivergedError) as caught:
        fit(network(), settings(), rows, breaks, CPU)
    epoch, step = divmod(place - 1, 7)
    rate = one_cycle(place - 1, 28, 0.05)
    assert str(caught.value) == (
        f"the loss is {bad} at epoch {epoch + 1}, step {step + 1} of 7, with a learning rate of {rate:.3g}; "
        "try a smaller training.learning_rate"
    )


def test_weights_that_are_no_numbers_after_the_last_step_are_not_a_model(rows):
    """The last step's own loss was still a number: its gradient was not."""
    plain, calls = squared(rows), iter(range(1, 1000))

    def breaks(outputs, chosen):
        value = plain(outputs, chosen)
        return value + (outputs * 0).sum().sqrt() if next(calls) == 28 else value  # 0, with the slope 0 * inf

    with pytest.raises(DivergedError, match=r"after epoch 4, step 7 of 7, with a learning rate of \S+; try a smaller"):
        fit(network(), settings(), rows, breaks, CPU)


@pytest.mark.parametrize(("clip", "clipped"), [(0.01, True), (1e9, False)])
def test_long_gradients_are_clipped(rows, clip, clipped):
    net, plain = network(), squared(rows)
    fit(net, settings(epochs=1, clip_norm=clip), rows, lambda *given: 1e4 * plain(*given), CPU)
    length = float(torch.cat([each.grad.flatten() for each in net.parameters()]).norm())  # of the last step
    assert length == pytest.approx(clip, rel=1e-3) if clipped else length > 10


class Falls:
    """A validation loss that falls up to an epoch and rises afterwards, and remembers the weights at each."""

    def __init__(self, best):
        self.best, self.seen = best, []

    def __call__(self, net):
        self.seen.append({name: value.clone() for name, value in net.state_dict().items()})
        return abs(len(self.seen) - self.best) + 1.0


def test_early_stopping_ends_after_its_patience_and_keeps_the_best_weights(rows):
    net, loss = network(), Falls(best=3)
    history = fit(net, settings(epochs=20, patience=2), rows, squared(rows), CPU, loss)
    assert [epoch.number for epoch in history] == [1, 2, 3, 4, 5]
    assert all(torch.equal(value, loss.seen[2][name]) for name, value in net.state_dict().items())


def test_without_patience_all_epochs_run_and_the_last_weights_are_kept(rows):
    net, loss = network(), Falls(best=2)
    assert len(fit(net, settings(epochs=5), rows, squared(rows), CPU, loss)) == 5
    assert all(torch.equal(value, loss.seen[-1][name]) for name, value in net.state_dict().items())


def test_the_seed_alone_decides_the_weights(rows):
    one, two, other = network(), network(), network()
    for net, seed in ((one, 1), (two, 1), (other, 2)):
        fit(net, settings(seed=seed), rows, squared(rows), CPU)
    assert same(one, two)
    assert not same(one, other)


def test_batches_that_are_too_small_are_refused_with_the_setting(rows):
    with pytest.raises(PlatformError, match=r"batches of 1 out of 100 rows are too small.*change training\.batch_size"):
        fit(network(), settings(batch_size=1), rows, squared(rows), CPU)


@pytest.fixture
def kept(rows, tmp_path):
    """A folder with the checkpoint of a training that was stopped in its second epoch."""
    net = network()
    with pytest.raises(Stopped):
        fit(net, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(tmp_path, net, rows), stop=after(9)))
    return tmp_path


def test_a_checkpoint_of_another_architecture_is_refused_by_name(rows, kept):
    wider = network(width=16)
    with pytest.raises(PlatformError) as caught:
        fit(wider, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(kept, wider, rows)))
    assert str(caught.value) == (
        f"the checkpoint {kept / 'checkpoint.pt'} is refused (remove it, or use another folder): it is of another "
        "architecture: in it layers.0.weight is [8, 4], but now it is [16, 4]"
    )
    deeper = nn.Sequential(network(), nn.Identity())
    with pytest.raises(PlatformError, match=r"another architecture: in it 0\.layers\.0\.weight is not there"):
        fit(deeper, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(kept, deeper, rows)))


def test_a_checkpoint_of_other_settings_or_rows_is_refused(rows, kept):
    given = settings(learning_rate=0.01)
    with pytest.raises(PlatformError, match=r"other settings: in it learning_rate is 0\.05, but now it is 0\.01"):
        checkpoints(kept, network(), rows, given).load()
    fewer = rows.take(np.arange(50))
    with pytest.raises(PlatformError, match="it was made from other rows than there are now"):
        checkpoints(kept, network(), fewer).load()


def test_a_damaged_checkpoint_is_refused(rows, kept):
    file = kept / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(PlatformError, match=r"is refused .* it cannot be read"):
        checkpoints(kept, network(), rows).load()


@contextmanager
def largest_file(size):
    """The kernel takes no more than so many bytes of a file from this process."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("how", ["full from the start", "full on the way"])
def test_a_disk_that_fills_leaves_the_last_good_checkpoint(rows, kept, how):
    """The errors are the kernel's: /dev/full has no room for a byte, and a limit of file size cuts a write short."""
    good, net = (kept / "checkpoint.pt").read_bytes(), network()
    if how == "full from the start":
        (kept / "checkpoint.new").symlink_to("/dev/full")
    size = resource.RLIM_INFINITY if how == "full from the start" else len(good) // 2
    with largest_file(size), pytest.raises(PlatformError) as caught:
        fit(net, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(kept, net, rows)))
    assert str(caught.value).startswith(f"the checkpoint {kept / 'checkpoint.pt'} cannot be written (")
    assert str(caught.value).endswith("the last good one is kept; make room, and run it again")
    assert [file.name for file in kept.iterdir()] == ["checkpoint.pt"]
    assert (kept / "checkpoint.pt").read_bytes() == good

    whole, resumed = network(), network()
    fit(whole, settings(), rows, squared(rows), CPU)
    fit(resumed, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(kept, resumed, rows)))
    assert same(resumed, whole)


def test_a_disk_that_was_full_from_the_first_checkpoint_on_leaves_none(rows, tmp_path):
    net = network()
    with largest_file(1000), pytest.raises(PlatformError, match="there is none yet; make room"):
        fit(net, settings(), rows, squared(rows), CPU, watch=Watch(checkpoints(tmp_path, net, rows)))
    assert list(tmp_path.iterdir()) == []
