// Solves the server's puzzle (f1vote/work.py): for each of PIECES pieces digits such that SHA-256
// of `<challenge>.<piece>.<digits>` begins with enough zero bits. This file is a module for the
// page and, loaded by itself, the worker that counts. WebCrypto's digest is asynchronous: a promise
// for each try costs many times the hash, so SHA-256 (FIPS 180-4) is written out here.

const PIECES = 8;
const DIGITS = 9; // so that each try has the same length; from 100000000
const SLICE_MS = 12; // what the page waits at most, where there is no worker

const K = new Int32Array([
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]);
const W = new Int32Array(64);

/** The first 32 bits of SHA-256 of the one block in the first 16 words of W. */
function firstWord() {
  for (let i = 16; i < 64; i++) {
    const x = W[i - 15];
    const y = W[i - 2];
    W[i] = (W[i - 16] + W[i - 7]
      + (((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3))
      + (((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10))) | 0;
  }
  let a = 0x6a09e667, b = 0xbb67ae85 | 0, c = 0x3c6ef372, d = 0xa54ff53a | 0;
  let e = 0x510e527f, f = 0x9b05688c | 0, g = 0x1f83d9ab, h = 0x5be0cd19;
  for (let i = 0; i < 64; i++) {
    const t = (h + K[i] + W[i] + ((e & f) ^ (~e & g))
      + (((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7)))) | 0;
    const u = (((a & b) ^ (a & c) ^ (b & c))
      + (((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10)))) | 0;
    h = g; g = f; f = e; e = (d + t) | 0; d = c; c = b; b = a; a = (t + u) | 0;
  }
  return (a + 0x6a09e667) | 0;
}

/** Solve one piece; yields now and then so that who runs it may pause. Returns the digits. */
function* search(challenge, piece) {
  const prefix = `${challenge}.${piece}.`;
  const length = prefix.length + DIGITS;
  if (length > 55) throw new RangeError("the challenge does not fit one block of SHA-256");
  const bytes = new DataView(new ArrayBuffer(64));
  const put = (text, at) => [...text].forEach((c, i) => bytes.setUint8(at + i, c.charCodeAt(0)));
  put(prefix, 0);
  bytes.setUint8(length, 0x80);
  bytes.setUint32(60, length * 8);
  const shift = 32 - Number(challenge.split(".")[0]);
  for (let n = 10 ** (DIGITS - 1); ; n++) {
    let rest = n;
    for (let at = length - 1; at >= prefix.length; at--) {
      bytes.setUint8(at, 48 + (rest % 10));
      rest = (rest / 10) | 0;
    }
    for (let i = 0; i < 16; i++) W[i] = bytes.getInt32(4 * i);
    if (firstWord() >>> shift === 0) return String(n);
    if (n % 512 === 0) yield;
  }
}

function countInWorker(challenge, progress) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(import.meta.url, { type: "module" });
    const found = [];
    worker.addEventListener("message", (event) => {
      found.push(event.data);
      progress(found.length / PIECES);
      if (found.length < PIECES) return;
      worker.terminate();
      resolve(found);
    });
    worker.addEventListener("error", (event) => {
      worker.terminate();
      reject(event);
    });
    worker.postMessage(challenge);
  });
}

async function countInSlices(challenge, progress) {
  const found = [];
  for (let piece = 0; piece < PIECES; piece++) {
    const steps = search(challenge, piece);
    let step;
    for (let end = performance.now() + SLICE_MS; !(step = steps.next()).done;) {
      if (performance.now() < end) continue;
      await new Promise((resolve) => { setTimeout(resolve); });
      end = performance.now() + SLICE_MS;
    }
    found.push(step.value);
    progress(found.length / PIECES);
  }
  return found;
}

/** Return what the field `work` must hold; `progress` is told how much is done, 0 to 1. */
export async function solve(challenge, progress = () => {}) {
  let found;
  try {
    found = await countInWorker(challenge, progress);
  } catch {
    // No worker, or none for modules (Firefox before 114).
    found = await countInSlices(challenge, progress);
  }
  return `${challenge}.${found.join("-")}`;
}

if (typeof WorkerGlobalScope === "function") {
  addEventListener("message", ({ data: challenge }) => {
    for (let piece = 0; piece < PIECES; piece++) {
      const steps = search(challenge, piece);
      let step;
      do step = steps.next(); while (!step.done);
      postMessage(step.value);
    }
  });
}
