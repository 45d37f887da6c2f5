// The end of a product of few rows: 64 invocations hold parts of sums, `split` side by side the parts of the same four
// columns, and give the whole sums back in the order in which the parts lie. It takes 5/4 KiB of workgroup memory a row.
override rows: u32 = 1; // m
const parts_size = rows * 256u;
const squares_size = rows * 64u;
var<workgroup> parts: array<f32, parts_size>; // [row * 4 + column of four][lane]
var<workgroup> squares: array<f32, squares_size>; // [row][lane]: parts of the sum of squares of a row of x

fn keep_parts(lane: u32, row: u32, sums: vec4f) {
  for (var c = 0u; c < 4u; c++) { parts[(row * 4u + c) * 64u + lane] = sums[c]; }
}

// Sum `column` (0 to 256 / split - 1) of this workgroup. Wants a barrier after keep_parts.
fn whole_sum(row: u32, column: u32, split: u32) -> f32 {
  let begin = (row * 4u + column % 4u) * 64u + column / 4u * split;
  var sum = 0.0;
  for (var i = 0u; i < split; i++) { sum += parts[begin + i]; }
  return sum;
}

fn keep_squares(lane: u32, row: u32, sum: f32) { squares[row * 64u + lane] = sum; }

// 1 / sqrt(mean(x^2) + eps) of a row of k. Any `split` lanes side by side hold all of its parts. Wants a barrier too.
fn norm_factor(row: u32, split: u32, k: u32, eps: f32) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < split; i++) { sum += squares[row * 64u + i]; }
  return inverseSqrt(sum / f32(k) + eps);
}
