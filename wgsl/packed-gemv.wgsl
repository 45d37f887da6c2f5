// y = x · weightᵀ for one to four rows, the weight quantised as lib/packed.wgsl says: the cost is the packed bytes.
// x (m, k)   weight (n, k)   y (m, n).   Split over k as in gemv.wgsl: `split` neighbouring invocations share four rows of
// weight, read steps of eight values side by side, decode them where they are used and for all rows of x, and their parts
// are added in workgroup memory at the end, always in the same order.
import package::lib::elem::elem;
import package::lib::packed::{scale_of, eight};
import package::lib::parts::{rows, keep_parts, whole_sum};

struct Params { n: u32, k: u32, offset: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(5) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read_write> y: array<elem>;

override split: u32 = 16;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let columns = 256u / split; // of a workgroup
  let first = group.x * columns;
  let steps = p.k / 8u;
  var row: array<u32, 4>;
  for (var c = 0u; c < 4u; c++) { row[c] = min(first + lane / split * 4u + c, p.n - 1u); }
  var sum: array<vec4f, 4>;
  for (var step = lane % split; step < steps; step += split) {
    var right: array<array<vec4f, 2>, 4>;
    for (var c = 0u; c < 4u; c++) {
      let at = row[c] * steps + step;
      right[c] = eight(at, scale_of(at, row[c], p.offset));
    }
    for (var r = 0u; r < rows; r++) {
      let low = vec4f(x[2u * (r * steps + step)]);
      let high = vec4f(x[2u * (r * steps + step) + 1u]);
      sum[r] += vec4f(dot(low, right[0][0]), dot(low, right[1][0]), dot(low, right[2][0]), dot(low, right[3][0]))
        + vec4f(dot(high, right[0][1]), dot(high, right[1][1]), dot(high, right[2][1]), dot(high, right[3][1]));
    }
  }
  for (var r = 0u; r < rows; r++) { keep_parts(lane, r, sum[r]); }
  workgroupBarrier();
  for (var i = lane; i < columns * rows; i += 64u) {
    let column = first + i % columns;
    if (column < p.n) { y[i / columns * p.n + column] = elem(whole_sum(i / columns, i % columns, split)); }
  }
}
