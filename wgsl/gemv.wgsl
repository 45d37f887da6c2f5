// y = x · weightᵀ for one to four rows, as in decoding a token.        x (m, k)   weight (n, k)   y (m, n)   k % 4 == 0
// The cost is reading weight once. `split` neighbouring invocations share four rows of it and read them side by side, so
// that loads are coalesced; their parts are added in workgroup memory at the end, always in the same order.
// x is read by all and comes from caches. Columns past the end are clamped and thrown away. What else it does:
//   normed: x is rmsNorm(x, gain): the gain where x is read, and 1 / rms where sums are stored
//   gated: y = act(x · weightᵀ) ∘ (x · secondᵀ), act 1 silu, 2 gelu        added: y = base + …
// Operands that are not used may be any.
import package::lib::elem::{elem, stored};
import package::lib::few::{normed, gated, Held, results_of};
import package::lib::parts::rows;

struct Params { n: u32, k: u32, eps: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<stored>>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;
@group(0) @binding(4) var<storage, read> gain: array<vec4<elem>>;
@group(0) @binding(5) var<storage, read> second: array<vec4<stored>>;
@group(0) @binding(6) var<storage, read> base: array<elem>;

override split: u32 = 16;
override added: u32 = 0;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let columns = 256u / split; // of a workgroup
  let first = group.x * columns;
  let width = p.k / 4u;
  var begin: array<u32, 4>;
  for (var c = 0u; c < 4u; c++) { begin[c] = min(first + lane / split * 4u + c, p.n - 1u) * width; }
  var held: Held;
  for (var at = lane % split; at < width; at += split) {
    var right: array<vec4f, 4>;
    var value: array<vec4f, 4>;
    for (var c = 0u; c < 4u; c++) {
      right[c] = vec4f(weight[begin[c] + at]);
      if (gated != 0u) { value[c] = vec4f(second[begin[c] + at]); }
    }
    for (var r = 0u; r < rows; r++) {
      var left = vec4f(x[r * width + at]);
      if (normed != 0u) {
        held.square[r] += dot(left, left);
        left *= vec4f(gain[at]);
      }
      held.sum[r] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
      if (gated != 0u) {
        held.other[r] += vec4f(dot(left, value[0]), dot(left, value[1]), dot(left, value[2]), dot(left, value[3]));
      }
    }
  }
  let value = results_of(held, lane, split, p.k, p.eps);
  for (var i = 0u; i < 2u; i++) {
    let at = lane + 64u * i;
    let row = at / columns;
    let column = first + at % columns;
    if (columns * rows > at && column < p.n) {
      var whole = value[i];
      if (added != 0u) { whole += f32(base[row * p.n + column]); }
      y[row * p.n + column] = elem(whole);
    }
  }
}
