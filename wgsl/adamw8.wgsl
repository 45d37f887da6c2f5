// AdamW whose moments are 8-bit codes, blockwise: of 256 elements each moment keeps 256 codes and one largest magnitude.
//   m = b1 m + (1-b1) g      v = b2 v + (1-b2) g²      w = w (1 - lr·decay) - lr · (m / c1) / (sqrt(v / c2) + eps)
// A value is map[code] · largest. A workgroup has one block, a lane four elements, which are one word of each moment.
// Steps use the moments before they are rounded. A v that is not zero never becomes zero: m / eps would be a leap.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::max_workgroup;

struct Params { size: u32, blocks: u32, beta1: f32, beta2: f32, eps: f32, decay: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gradient: array<elem>;
@group(0) @binding(2) var<storage, read> clip: array<f32>;
@group(0) @binding(3) var<storage, read_write> weight: array<elem>;
@group(0) @binding(4) var<storage, read_write> m: array<u32>;
@group(0) @binding(5) var<storage, read_write> v: array<u32>;
@group(0) @binding(6) var<storage, read_write> largest: array<vec2f>; // of m and of v, by block
@group(0) @binding(7) var<storage, read> maps: array<f32>; // 256 ascending values for m, then 256 for v
@group(0) @binding(8) var<storage, read> rates: array<f32>; // lr, c1, c2

const signed_map = 0u;
const unsigned_map = 256u;

fn code_of(word: u32, i: u32) -> u32 { return (word >> (8u * i)) & 255u; }

// The code of the value nearest to x in the map that begins at `first`; of two as near, the lower.
fn nearest(first: u32, x: f32) -> u32 {
  var code = 0u;
  for (var half = 128u; half > 0u; half >>= 1u) {
    if (x >= maps[first + code + half]) { code += half; }
  }
  let next = min(code + 1u, 255u);
  if (x - maps[first + code] > maps[first + next] - x) { return next; }
  return code;
}

@compute @workgroup_size(64)
fn update(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let chunk = flat_workgroup(group, groups);
  if (chunk >= p.blocks) { return; }
  let word = 64u * chunk + lane;
  let before = largest[chunk];
  let words = vec2u(m[word], v[word]);
  var means: vec4f;
  var squares: vec4f;
  for (var i = 0u; i < 4u; i++) {
    let at = 4u * word + i;
    if (at >= p.size) { break; }
    let g = f32(gradient[at]) * clip[0];
    means[i] = p.beta1 * maps[signed_map + code_of(words.x, i)] * before.x + (1.0 - p.beta1) * g;
    squares[i] = p.beta2 * maps[unsigned_map + code_of(words.y, i)] * before.y + (1.0 - p.beta2) * g * g;
    let change = rates[0] * (means[i] / rates[1]) / (sqrt(squares[i] / rates[2]) + p.eps);
    weight[at] = elem(f32(weight[at]) * (1.0 - rates[0] * p.decay) - change);
  }
  let far = abs(means);
  let most_m = max_workgroup(lane, max(max(far.x, far.y), max(far.z, far.w)));
  let most_v = max_workgroup(lane, max(max(squares.x, squares.y), max(squares.z, squares.w)));
  var codes = vec2u(0u);
  for (var i = 0u; i < 4u; i++) {
    let mean_code = nearest(signed_map, means[i] / max(most_m, 1e-38));
    let square_code = nearest(unsigned_map, squares[i] / max(most_v, 1e-38));
    let kept = max(square_code, select(0u, 1u, squares[i] > 0.0));
    codes += vec2u(mean_code << (8u * i), kept << (8u * i));
  }
  m[word] = codes.x;
  v[word] = codes.y;
  if (lane == 0u) { largest[chunk] = vec2f(most_m, most_v); }
}
