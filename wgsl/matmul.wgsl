// y = a · b, one matrix a batch entry.                         y (batch, m, n)   k is the dimension that is summed
//   nn: a (m, k) · b (k, n)          nt: a (m, k) · b (n, k)ᵀ          tn: a (k, m)ᵀ · b (k, n)
// An invocation makes 8 rows × 8 columns in registers from vec4 loads; a workgroup of 64 invocations, `across` of them
// side by side, makes a tile of 64 × 64, or a higher one where y has few columns. Loads past the ragged end are clamped
// to the last row and thrown away, so the inner loop has no branches. All sizes that vec4 loads run along must be
// multiples of four: matmul-plain.wgsl takes the rest.
import package::lib::elem::elem;

struct Params { m: u32, n: u32, k: u32, a_stride: u32, b_stride: u32 } // strides from one matrix to the next, in vec4
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<elem>>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;

override across: u32 = 8;
override down: u32 = 8;
alias Tile = array<array<vec4f, 2>, 8>;

fn first_row(group: vec3u, local: vec3u) -> u32 { return (group.y * down + local.y) * 8u; }
fn first_column(group: vec3u, local: vec3u) -> u32 { return (group.x * across + local.x) * 8u; }

fn store(sum: Tile, batch: u32, row: u32, column: u32) {
  for (var r = 0u; r < 8u; r++) {
    if (row + r < p.m) {
      let base = (batch * p.m + row + r) * p.n;
      for (var c = 0u; c < 8u; c++) {
        if (column + c < p.n) { y[base + column + c] = elem(sum[r][c / 4u][c % 4u]); }
      }
    }
  }
}

@compute @workgroup_size(across, down)
fn nt(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = first_row(group, local);
  let column = first_column(group, local);
  if (row >= p.m || column >= p.n) { return; }
  let width = p.k / 4u;
  var a_base: array<u32, 8>;
  var b_base: array<u32, 8>;
  for (var i = 0u; i < 8u; i++) {
    a_base[i] = group.z * p.a_stride + min(row + i, p.m - 1u) * width;
    b_base[i] = group.z * p.b_stride + min(column + i, p.n - 1u) * width;
  }
  var sum: Tile;
  for (var k = 0u; k < width; k++) {
    var right: array<vec4f, 8>;
    for (var c = 0u; c < 8u; c++) { right[c] = vec4f(b[b_base[c] + k]); }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(a[a_base[r] + k]);
      sum[r][0] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
      sum[r][1] += vec4f(dot(left, right[4]), dot(left, right[5]), dot(left, right[6]), dot(left, right[7]));
    }
  }
  store(sum, group.z, row, column);
}

@compute @workgroup_size(across, down)
fn nn(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = first_row(group, local);
  let column = first_column(group, local);
  if (row >= p.m || column >= p.n) { return; }
  var a_base: array<u32, 8>;
  for (var i = 0u; i < 8u; i++) { a_base[i] = group.z * p.a_stride + min(row + i, p.m - 1u) * (p.k / 4u); }
  let width = p.n / 4u;
  let b_base = vec2u(min(column / 4u, width - 1u), min(column / 4u + 1u, width - 1u)) + group.z * p.b_stride;
  var sum: Tile;
  for (var k = 0u; k < p.k / 4u; k++) {
    var right: array<array<vec4f, 2>, 4>;
    for (var i = 0u; i < 4u; i++) {
      right[i][0] = vec4f(b[b_base.x + (4u * k + i) * width]);
      right[i][1] = vec4f(b[b_base.y + (4u * k + i) * width]);
    }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(a[a_base[r] + k]);
      for (var i = 0u; i < 4u; i++) {
        sum[r][0] += left[i] * right[i][0];
        sum[r][1] += left[i] * right[i][1];
      }
    }
  }
  store(sum, group.z, row, column);
}

@compute @workgroup_size(across, down)
fn tn(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = first_row(group, local);
  let column = first_column(group, local);
  if (row >= p.m || column >= p.n) { return; }
  let a_width = p.m / 4u;
  let b_width = p.n / 4u;
  let a_base = vec2u(min(row / 4u, a_width - 1u), min(row / 4u + 1u, a_width - 1u)) + group.z * p.a_stride;
  let b_base = vec2u(min(column / 4u, b_width - 1u), min(column / 4u + 1u, b_width - 1u)) + group.z * p.b_stride;
  var sum: Tile;
  for (var k = 0u; k < p.k; k++) {
    let left = array<vec4f, 2>(vec4f(a[a_base.x + k * a_width]), vec4f(a[a_base.y + k * a_width]));
    let right = array<vec4f, 2>(vec4f(b[b_base.x + k * b_width]), vec4f(b[b_base.y + k * b_width]));
    for (var r = 0u; r < 8u; r++) {
      sum[r][0] += left[r / 4u][r % 4u] * right[0];
      sum[r][1] += left[r / 4u][r % 4u] * right[1];
    }
  }
  store(sum, group.z, row, column);
}
