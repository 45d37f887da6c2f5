// y = x · weightᵀ for one to four rows, as in decoding a token.        x (m, k)   weight (n, k)   y (m, n)   k % 4 == 0
// The cost is reading weight once. `split` neighbouring invocations share four rows of it and read them side by side, so
// that loads are coalesced; their parts are added in workgroup memory at the end, always in the same order.
// x is read by all and comes from caches. Columns past the end are clamped and thrown away.
import package::lib::elem::elem;
import package::lib::parts::{rows, keep_parts, whole_sum};

struct Params { n: u32, k: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<elem>>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;

override split: u32 = 16;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let columns = 256u / split; // of a workgroup
  let first = group.x * columns;
  let width = p.k / 4u;
  var base: array<u32, 4>;
  for (var c = 0u; c < 4u; c++) { base[c] = min(first + lane / split * 4u + c, p.n - 1u) * width; }
  var sum: array<vec4f, 4>;
  for (var at = lane % split; at < width; at += split) {
    var right: array<vec4f, 4>;
    for (var c = 0u; c < 4u; c++) { right[c] = vec4f(weight[base[c] + at]); }
    for (var r = 0u; r < rows; r++) {
      let left = vec4f(x[r * width + at]);
      sum[r] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
    }
  }
  for (var r = 0u; r < rows; r++) { keep_parts(lane, r, sum[r]); }
  workgroupBarrier();
  for (var i = lane; i < columns * rows; i += 64u) {
    let column = first + i % columns;
    if (column < p.n) { y[i / columns * p.n + column] = elem(whole_sum(i / columns, i % columns, split)); }
  }
}
