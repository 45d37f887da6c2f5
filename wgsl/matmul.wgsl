// y = a · b with tiles in registers, without workgroup memory: shapes and stores are in lib/product.wgsl.
//   plain: y = a · b      onto: y = base + alpha · (a · b)      split: sums over parts of k, for split-sum.wgsl
// An invocation makes 8 rows × 8 columns from vec4 loads. Loads past the ragged end are clamped to the last row and
// thrown away, so the inner loops have no branches. All sizes that vec4 loads run along must be multiples of four:
// matmul-any.wgsl takes the rest.
import package::lib::product::{p, a, b, a_transposed, b_transposed, across, down, Sums, Tile};
import package::lib::product::{tile_of, store, store_onto, store_part};

// a (m, k), b (n, k)
fn sum_nt(t: Tile) -> Sums {
  let width = p.k / 4u;
  var a_base: array<u32, 8>;
  var b_base: array<u32, 8>;
  for (var i = 0u; i < 8u; i++) {
    a_base[i] = t.batch * p.a_stride + min(t.row + i, p.m - 1u) * width;
    b_base[i] = t.batch * p.b_stride + min(t.column + i, p.n - 1u) * width;
  }
  var sum: Sums;
  for (var k = t.begin / 4u; k < t.end / 4u; k++) {
    var right: array<vec4f, 8>;
    for (var c = 0u; c < 8u; c++) { right[c] = vec4f(b[b_base[c] + k]); }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(a[a_base[r] + k]);
      sum[r][0] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
      sum[r][1] += vec4f(dot(left, right[4]), dot(left, right[5]), dot(left, right[6]), dot(left, right[7]));
    }
  }
  return sum;
}

// a (m, k), b (k, n)
fn sum_nn(t: Tile) -> Sums {
  var a_base: array<u32, 8>;
  for (var i = 0u; i < 8u; i++) { a_base[i] = t.batch * p.a_stride + min(t.row + i, p.m - 1u) * (p.k / 4u); }
  let width = p.n / 4u;
  let b_base = vec2u(min(t.column / 4u, width - 1u), min(t.column / 4u + 1u, width - 1u)) + t.batch * p.b_stride;
  var sum: Sums;
  for (var k = t.begin / 4u; k < t.end / 4u; k++) {
    var right: array<array<vec4f, 2>, 4>;
    for (var i = 0u; i < 4u; i++) {
      right[i][0] = vec4f(b[b_base.x + (4u * k + i) * width]);
      right[i][1] = vec4f(b[b_base.y + (4u * k + i) * width]);
    }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(a[a_base[r] + k]);
      // Four products are added before they meet the sum: a quarter of the roundings.
      for (var h = 0u; h < 2u; h++) {
        sum[r][h] += left.x * right[0][h] + left.y * right[1][h] + left.z * right[2][h] + left.w * right[3][h];
      }
    }
  }
  return sum;
}

// a (k, m), b (k, n)
fn sum_tn(t: Tile) -> Sums {
  let a_width = p.m / 4u;
  let b_width = p.n / 4u;
  let a_base = vec2u(min(t.row / 4u, a_width - 1u), min(t.row / 4u + 1u, a_width - 1u)) + t.batch * p.a_stride;
  let b_base = vec2u(min(t.column / 4u, b_width - 1u), min(t.column / 4u + 1u, b_width - 1u)) + t.batch * p.b_stride;
  var sum: Sums;
  for (var k = t.begin; k < t.end; k++) {
    let left = array<vec4f, 2>(vec4f(a[a_base.x + k * a_width]), vec4f(a[a_base.y + k * a_width]));
    let right = array<vec4f, 2>(vec4f(b[b_base.x + k * b_width]), vec4f(b[b_base.y + k * b_width]));
    for (var r = 0u; r < 8u; r++) {
      sum[r][0] += left[r / 4u][r % 4u] * right[0];
      sum[r][1] += left[r / 4u][r % 4u] * right[1];
    }
  }
  return sum;
}

fn sum_of(t: Tile) -> Sums {
  if (a_transposed != 0u) { return sum_tn(t); }
  if (b_transposed != 0u) { return sum_nt(t); }
  return sum_nn(t);
}

@compute @workgroup_size(across, down)
fn plain(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let t = tile_of(group, local);
  if (t.row < p.m && t.column < p.n) { store(t, sum_of(t)); }
}

@compute @workgroup_size(across, down)
fn onto(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let t = tile_of(group, local);
  if (t.row < p.m && t.column < p.n) { store_onto(t, sum_of(t)); }
}

@compute @workgroup_size(across, down)
fn split(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let t = tile_of(group, local);
  if (t.row < p.m && t.column < p.n) { store_part(t, sum_of(t)); }
}
