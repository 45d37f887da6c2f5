// Weights in NF4, read as they are stored: 8 codes in a u32, the first of each byte in its high nibble, and one scale
// for every 64 values of the flattened matrix.      codes (n * k / 8)   scales (n * k / 64)   k is a multiple of 8
//   dequantize: weight (n, k)      forward: y = x · weightᵀ      backward: dx = dy · weight      x (m, k)   y (m, n)
// The weight matrix never exists as a whole in the last two: each word is decoded in registers by whoever uses it.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { m: u32, n: u32, k: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read_write> weight: array<elem>;

// The quantiles of a normal distribution of Dettmers et al., QLoRA, 2023, as bitsandbytes rounds them to f32.
const levels = array<f32, 16>(
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0);

// Value `i` (0 to 7) of a word, before scaling.
fn level(word: u32, i: u32) -> f32 {
  return levels[(word >> ((i ^ 1u) * 4u)) & 15u];
}

@compute @workgroup_size(64)
fn dequantize(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
              @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.n * p.k) { return; }
  weight[i] = elem(level(codes[i / 8u], i % 8u) * scales[i / 64u]);
}

// One invocation makes 8 rows of one column of y; the lanes of a subgroup read the same x.
@group(0) @binding(3) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(4) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = group.x * 64u + lane;
  let row = group.y * 8u;
  if (column >= p.n) { return; }
  let words = p.k / 8u;
  var sum: array<f32, 8>;
  for (var w = 0u; w < words; w++) {
    let at = column * words + w;
    let word = codes[at];
    let scale = scales[at / 8u];
    let low = vec4f(level(word, 0u), level(word, 1u), level(word, 2u), level(word, 3u)) * scale;
    let high = vec4f(level(word, 4u), level(word, 5u), level(word, 6u), level(word, 7u)) * scale;
    for (var r = 0u; r < 8u; r++) {
      let base = (min(row + r, p.m - 1u) * words + w) * 2u;
      sum[r] += dot(vec4f(x[base]), low) + dot(vec4f(x[base + 1u]), high);
    }
  }
  for (var r = 0u; r < 8u; r++) {
    if (row + r < p.m) { y[(row + r) * p.n + column] = elem(sum[r]); }
  }
}

// One invocation makes 8 rows of the 8 columns of dx that one word covers.
@group(0) @binding(3) var<storage, read> dy: array<elem>;
@group(0) @binding(4) var<storage, read_write> dx: array<vec4<elem>>;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let words = p.k / 8u;
  let w = group.x * 64u + lane;
  let row = group.y * 8u;
  if (w >= words) { return; }
  var sum: array<array<vec4f, 2>, 8>;
  for (var n = 0u; n < p.n; n++) {
    let at = n * words + w;
    let word = codes[at];
    let scale = scales[at / 8u];
    let low = vec4f(level(word, 0u), level(word, 1u), level(word, 2u), level(word, 3u)) * scale;
    let high = vec4f(level(word, 4u), level(word, 5u), level(word, 6u), level(word, 7u)) * scale;
    for (var r = 0u; r < 8u; r++) {
      let slope = f32(dy[min(row + r, p.m - 1u) * p.n + n]);
      sum[r][0] += slope * low;
      sum[r][1] += slope * high;
    }
  }
  for (var r = 0u; r < 8u; r++) {
    if (row + r < p.m) {
      dx[((row + r) * words + w) * 2u] = vec4<elem>(sum[r][0]);
      dx[((row + r) * words + w) * 2u + 1u] = vec4<elem>(sum[r][1]);
    }
  }
}
