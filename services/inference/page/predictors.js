// Two that answer the same question with the same model: the API, and ONNX Runtime in this browser.

const PATIENCE_MS = 10_000;

/** A reason in words why there is no answer; `wantsToken` if that might be why. */
export class Problem extends Error {
  constructor(reason, wantsToken = false) {
    super(reason);
    this.wantsToken = wantsToken;
  }
}

/** What the service says, over HTTP. */
export class Api {
  constructor(model) {
    this.path = `v2/models/${encodeURIComponent(model)}`;
    this.token = "";
  }

  /** How to call the model, as the protocol describes it. */
  async metadata(version = "") {
    return (await this.ask(version ? `${this.path}/versions/${version}` : this.path)).json();
  }

  /** The ONNX file of a version. */
  async file(version) {
    return new Uint8Array(await (await this.ask(`${this.path}/versions/${version}/model.onnx`)).arrayBuffer());
  }

  async predict(pixels) {
    const tensor = { name: "features", datatype: "FP32", shape: [1, pixels.length], data: pixels };
    const body = JSON.stringify({ inputs: [tensor] });
    const start = performance.now();
    const answer = await this.ask(`${this.path}/infer`, { method: "POST", body });
    const { model_version: version, outputs } = await answer.json();
    const ms = performance.now() - start;
    const output = (name) => outputs.find((each) => each.name === name).data;
    return { label: output("label")[0], probabilities: output("probabilities"), version, ms };
  }

  async ask(path, options = {}) {
    const headers = { ...(options.body && { "content-type": "application/json" }) };
    if (this.token) headers.authorization = `Bearer ${this.token}`;
    let answer;
    try {
      answer = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(PATIENCE_MS) });
    } catch (error) {
      const late = error.name === "TimeoutError";
      throw new Problem(
        late ? `The API has not answered within ${PATIENCE_MS / 1000} seconds.` : "The API cannot be reached. Is the service running?",
      );
    }
    if (answer.ok) return answer;
    if (answer.status === 401 || answer.status === 403) {
      const said = await reason(answer);
      throw new Problem(`The API refuses access (${answer.status}${said}).`, true);
    }
    throw new Problem(`The API answers with an error (${answer.status}${await reason(answer)}).`);
  }
}

async function reason(answer) {
  try {
    const { error, message } = await answer.json();
    return error || message ? `: ${error || message}` : "";
  } catch {
    return ""; // the answer of something in front of the service, which has a format of its own
  }
}

/** ONNX Runtime as WebAssembly, with the file that the service serves. */
export class Browser {
  constructor(api) {
    this.api = api;
    this.version = null;
    this.session = null;
    this.ort = null;
    this.isLoading = false;
    this.refusals = new Map();
  }

  /** Get ready to answer with this version; one that was refused for good is not asked for again. */
  async load(version) {
    if (version === this.version) return;
    if (this.refusals.has(version)) throw this.refusals.get(version);
    this.isLoading = true;
    try {
      this.session = await this.open(version);
      this.version = version;
      await this.predict(new Array(64).fill(0)); // the first run takes longer, and says nothing
    } finally {
      this.isLoading = false;
    }
  }

  async open(version) {
    if (typeof WebAssembly === "undefined") {
      throw new Problem("This browser has no WebAssembly, so it cannot run the model; the API can.");
    }
    const { browser } = await this.api.metadata(version);
    if (!browser) {
      throw this.refusal(version, `Version ${version} stays on the server: its manifest does not say “browser: true”.`);
    }
    const file = await this.api.file(version);
    try {
      this.ort ??= await runtime();
    } catch (error) {
      throw new Problem(`What runs the model in this browser cannot be loaded: ${error.message ?? error}`);
    }
    try {
      return await this.ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
    } catch (error) {
      throw this.refusal(version, `This browser cannot run the model: ${error.message ?? error}`);
    }
  }

  refusal(version, reason) {
    this.refusals.set(version, new Problem(reason));
    return this.refusals.get(version);
  }

  async predict(pixels) {
    const features = new this.ort.Tensor("float32", Float32Array.from(pixels), [1, pixels.length]);
    const start = performance.now();
    const { label, probabilities } = await this.session.run({ features });
    const ms = performance.now() - start;
    return { label: Number(label.data[0]), probabilities: [...probabilities.data], version: this.version, ms };
  }
}

/** ONNX Runtime's module, loaded when it is needed: the API's side of the page works without. */
async function runtime() {
  const ort = await import("./vendor/ort.wasm.bundle.min.mjs");
  ort.env.wasm.numThreads = 1; // one row is too little work to share
  // Fetched here, as the runtime itself would not try again after a failure.
  const wasm = await fetch(new URL("./vendor/ort-wasm-simd-threaded.wasm", import.meta.url));
  if (!wasm.ok) throw new Error(`status ${wasm.status}`);
  ort.env.wasm.wasmBinary = await wasm.arrayBuffer();
  return ort;
}
