// y = a · b with any sizes and strides, for those that are not multiples of four.                       y (batch, m, n)
//   a[i, k] lies at i * a_row + k * a_column, b[k, j] at k * b_row + j * b_column
// An invocation makes 4 rows × 8 columns from scalar loads, clamped at the ragged ends and thrown away there. Sums of 256
// of k are added up first, so that the error does not grow with k.
import package::lib::elem::{elem, stored};
import package::lib::activation::activated;

struct Params {
  m: u32, n: u32, k: u32,
  a_row: u32, a_column: u32, a_stride: u32,
  b_row: u32, b_column: u32, b_stride: u32,
  base_row: u32, base_stride: u32, alpha: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<elem>;
@group(0) @binding(2) var<storage, read> b: array<stored>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;
@group(0) @binding(4) var<storage, read> base: array<elem>;

override activation: u32 = 0; // 1 SiLU, 2 GELU
alias Sums = array<array<f32, 8>, 4>;

fn sum_of(batch: u32, row: u32, column: u32) -> Sums {
  var a_base: array<u32, 4>;
  var b_base: array<u32, 8>;
  for (var r = 0u; r < 4u; r++) { a_base[r] = batch * p.a_stride + min(row + r, p.m - 1u) * p.a_row; }
  for (var c = 0u; c < 8u; c++) { b_base[c] = batch * p.b_stride + min(column + c, p.n - 1u) * p.b_column; }
  var total: Sums;
  var sum: Sums;
  for (var first = 0u; first < p.k; first += 256u) {
    for (var k = first; k < min(first + 256u, p.k); k++) {
      var right: array<f32, 8>;
      for (var c = 0u; c < 8u; c++) { right[c] = f32(b[b_base[c] + k * p.b_row]); }
      for (var r = 0u; r < 4u; r++) {
        let left = f32(a[a_base[r] + k * p.a_column]);
        for (var c = 0u; c < 8u; c++) { sum[r][c] += left * right[c]; }
      }
    }
    for (var r = 0u; r < 4u; r++) {
      for (var c = 0u; c < 8u; c++) {
        total[r][c] += sum[r][c];
        sum[r][c] = 0.0;
      }
    }
  }
  return total;
}

@compute @workgroup_size(8, 8)
fn plain(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y * 4u;
  let column = id.x * 8u;
  if (row >= p.m || column >= p.n) { return; }
  let sum = sum_of(id.z, row, column);
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < 8u; c++) {
      if (row + r < p.m && column + c < p.n) {
        y[(id.z * p.m + row + r) * p.n + column + c] = elem(activated(activation, p.alpha * sum[r][c]));
      }
    }
  }
}

// y = base + alpha * (a · b); base_row is 0 where one row of base serves all rows.
@compute @workgroup_size(8, 8)
fn onto(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y * 4u;
  let column = id.x * 8u;
  if (row >= p.m || column >= p.n) { return; }
  let sum = sum_of(id.z, row, column);
  for (var r = 0u; r < 4u; r++) {
    let from_base = id.z * p.base_stride + (row + r) * p.base_row + column;
    for (var c = 0u; c < 8u; c++) {
      if (row + r < p.m && column + c < p.n) {
        y[(id.z * p.m + row + r) * p.n + column + c] = elem(activated(activation, f32(base[from_base + c]) + p.alpha * sum[r][c]));
      }
    }
  }
}
