// Copies what the demo page, and its tests, take from npm into the repository, so that nobody else needs Node:
//
//     npm ci --ignore-scripts && npm run vendor
//
// vendor.json says where each file is from. A file is only written anew if its content has changed.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { gunzipSync, gzipSync } from "node:zlib";

const PAGE = "../page/vendor";
const TESTS = "../../../tests/services/vendor";
const FILES = [
  ["onnxruntime-web", "dist/ort.wasm.bundle.min.mjs", PAGE],
  ["onnxruntime-web", "dist/ort-wasm-simd-threaded.wasm", PAGE],
  ["axe-core", "axe.min.js", TESTS],
];

const sha256 = (content) => createHash("sha256").update(content).digest("hex");
const lock = JSON.parse(readFileSync("package-lock.json"));
const known = FILES.map(([name, from, folder]) => {
  const content = readFileSync(`node_modules/${name}/${from}`);
  const file = `${folder}/${from.split("/").at(-1)}.gz`;
  mkdirSync(folder, { recursive: true });
  if (!existsSync(file) || sha256(gunzipSync(readFileSync(file))) !== sha256(content)) {
    writeFileSync(file, gzipSync(content, { level: 9 }));
  }
  const { version, license, integrity } = lock.packages[`node_modules/${name}`];
  return { file, package: name, version, license, integrity, from, sha256: sha256(content) };
});
writeFileSync("vendor.json", JSON.stringify(known, null, 2) + "\n");
