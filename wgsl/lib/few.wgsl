// The end of a product of few rows that may do more (gemv.wgsl): each invocation gives the sums that it holds parts of,
// and gets the results of its two places. Place i of a lane is `at` = lane + 64 * i: row at / columns, column at % columns
// of the 256 / split columns of its workgroup. There are two at most: 32 columns of 4 rows for 64 lanes.
//   normed: times 1 / rms of the row of x        gated: act(sum) * other, act 1 SiLU, 2 GELU
import package::lib::activation::activated;
import package::lib::parts::{rows, keep_parts, whole_sum, keep_squares, norm_factor};

override normed: u32 = 0;
override gated: u32 = 0;

struct Held { sum: array<vec4f, 4>, other: array<vec4f, 4>, square: array<f32, 4> } // for each row of x, four columns

fn results_of(held: Held, lane: u32, split: u32, k: u32, eps: f32) -> array<f32, 2> {
  let columns = 256u / split;
  for (var r = 0u; r < rows; r++) {
    keep_parts(lane, r, held.sum[r]);
    if (normed != 0u) { keep_squares(lane, r, held.square[r]); }
  }
  workgroupBarrier();
  var value: array<f32, 2>;
  for (var i = 0u; i < 2u; i++) {
    let at = lane + 64u * i;
    if (columns * rows > at) { value[i] = whole_sum(at / columns, at % columns, split); }
  }
  if (gated != 0u) {
    workgroupBarrier();
    for (var r = 0u; r < rows; r++) { keep_parts(lane, r, held.other[r]); }
    workgroupBarrier();
  }
  for (var i = 0u; i < 2u; i++) {
    let at = lane + 64u * i;
    if (columns * rows > at) {
      var factor = 1.0;
      if (normed != 0u) { factor = norm_factor(at / columns, split, k, eps); }
      value[i] *= factor;
      if (gated != 0u) { value[i] = activated(gated, value[i]) * factor * whole_sum(at / columns, at % columns, split); }
    }
  }
  return value;
}
