// Weights (n, k) read as they are stored, k a multiple of 8. Eight values of a row that follow each other are one step:
// `at` = row * k / 8 + step counts them through the flattened matrix.
//   form 0: NF4. A word holds a step, the first value of each byte in its high nibble; `scales` has one for 8 steps.
//   form 1: NF4 with nested scales. A byte of `scale_codes` for 8 steps; scale = map[code] * scales[block of 256] + offset.
//   form 2: int8. Two words hold a step; `scales` has the largest magnitude of each row, which code 127 stands for.
// scale_codes and scale_map are read in form 1 alone: the others bind any tensors there.
override form: u32 = 0;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read> scale_codes: array<u32>;
@group(0) @binding(4) var<storage, read> scale_map: array<f32>;

// The quantiles of a normal distribution of Dettmers et al., QLoRA, 2023, as bitsandbytes rounds them to f32.
const levels = array<f32, 16>(
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0);

// The factor of step `at`, which is in `row`.
fn scale_of(at: u32, row: u32, offset: f32) -> f32 {
  if (form == 2u) { return scales[row] * 0.007874015718698502; } // f32(1 / 127)
  let group = at / 8u;
  if (form == 0u) { return scales[group]; }
  let code = (scale_codes[group / 4u] >> (8u * (group % 4u))) & 255u; // extractBits: a quarter slower in all
  return scale_map[code] * scales[group / 256u] + offset;
}

// The levels of four codes, by a tree of selections: software GPUs have no fast table, and others spill one.
fn level(code: vec4u) -> vec4f {
  let b0 = (code & vec4u(1u)) != vec4u(0u);
  let b1 = (code & vec4u(2u)) != vec4u(0u);
  let b2 = (code & vec4u(4u)) != vec4u(0u);
  var quarter: array<vec4f, 4>;
  for (var i = 0u; i < 4u; i++) {
    let low = select(vec4f(levels[4u * i]), vec4f(levels[4u * i + 1u]), b0);
    let high = select(vec4f(levels[4u * i + 2u]), vec4f(levels[4u * i + 3u]), b0);
    quarter[i] = select(low, high, b1);
  }
  return select(select(quarter[0], quarter[1], b2), select(quarter[2], quarter[3], b2), code >= vec4u(8u));
}

// The eight values of step `at` times `scale`.
fn eight(at: u32, scale: f32) -> array<vec4f, 2> {
  if (form == 2u) {
    let low = vec4i(bitcast<i32>(codes[2u * at])) << vec4u(24u, 16u, 8u, 0u);
    let high = vec4i(bitcast<i32>(codes[2u * at + 1u])) << vec4u(24u, 16u, 8u, 0u);
    return array<vec4f, 2>(scale * vec4f(low >> vec4u(24u)), scale * vec4f(high >> vec4u(24u)));
  }
  let word = vec4u(codes[at]);
  let low = (word >> vec4u(4u, 0u, 12u, 8u)) & vec4u(15u);
  let high = (word >> vec4u(20u, 16u, 28u, 24u)) & vec4u(15u);
  return array<vec4f, 2>(scale * level(low), scale * level(high));
}
