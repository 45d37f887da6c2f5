// y = a · b with any strides, one invocation an element: the naive twin of matmul.wgsl, for sizes that are not
// multiples of four.   y (batch, m, n);  a[i, k] lies at i * a_row + k * a_column, b[k, j] at k * b_row + j * b_column
import package::lib::elem::elem;

struct Params {
  m: u32, n: u32, k: u32,
  a_row: u32, a_column: u32, a_stride: u32,
  b_row: u32, b_column: u32, b_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<elem>;
@group(0) @binding(2) var<storage, read> b: array<elem>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(8, 8)
fn forward(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y;
  let column = id.x;
  if (row >= p.m || column >= p.n) { return; }
  var sum = 0.0;
  for (var k = 0u; k < p.k; k++) {
    let left = f32(a[id.z * p.a_stride + row * p.a_row + k * p.a_column]);
    sum += left * f32(b[id.z * p.b_stride + k * p.b_row + column * p.b_column]);
  }
  y[(id.z * p.m + row) * p.n + column] = elem(sum);
}
