// Products with a quantised weight (n, k) that is never stored decoded; lib/packed.wgsl says how it lies.
//   forward: y = x · weightᵀ        backward: dx = dy · weight        x, dx (m, k)   y, dy (m, n)
// As in matmul.wgsl an invocation makes 8 rows × 8 columns in registers from vec4 loads, so that a decoded word serves 8
// rows, and loads past the ragged end are clamped and thrown away. `run` steps of a row, a divisor of 8, share a scale.
// backward reads dy in rows of `width`, n rounded up to a multiple of 4 with zeros, which `backward_pad` makes where n is ragged.
// The _lora entries go on summing over the ranks of an update: + thin · upᵀ, or + thin · lower. rank is a multiple of 4.
//   thin (m, rank) f32     up (n, rank)     lower (rank, k)
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::packed::{scale_of, eight};

struct Params { m: u32, n: u32, k: u32, run: u32, width: u32, rank: u32, offset: f32 }
@group(0) @binding(0) var<uniform> p: Params;

override across: u32 = 8;
override down: u32 = 8;
alias Tile = array<array<vec4f, 2>, 8>;

@group(0) @binding(5) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read_write> y: array<elem>;
@group(0) @binding(7) var<storage, read> thin: array<vec4f>;
@group(0) @binding(8) var<storage, read> up: array<vec4<elem>>;

fn base_nt(row: u32, column: u32) -> Tile {
  let steps = p.k / 8u;
  var x_base: array<u32, 8>;
  var w_base: array<u32, 8>;
  for (var i = 0u; i < 8u; i++) {
    x_base[i] = min(row + i, p.m - 1u) * steps * 2u;
    w_base[i] = min(column + i, p.n - 1u) * steps;
  }
  var sum: Tile;
  for (var first = 0u; first < steps; first += p.run) {
    var scale: array<f32, 8>;
    for (var c = 0u; c < 8u; c++) { scale[c] = scale_of(w_base[c] + first, min(column + c, p.n - 1u), p.offset); }
    for (var step = first; step < first + p.run; step++) {
      var right: array<array<vec4f, 2>, 8>;
      for (var c = 0u; c < 8u; c++) { right[c] = eight(w_base[c] + step, scale[c]); }
      for (var r = 0u; r < 8u; r++) {
        let left = array<vec4f, 2>(vec4f(x[x_base[r] + 2u * step]), vec4f(x[x_base[r] + 2u * step + 1u]));
        sum[r][0] += vec4f(dots(left, right[0]), dots(left, right[1]), dots(left, right[2]), dots(left, right[3]));
        sum[r][1] += vec4f(dots(left, right[4]), dots(left, right[5]), dots(left, right[6]), dots(left, right[7]));
      }
    }
  }
  return sum;
}

fn dots(a: array<vec4f, 2>, b: array<vec4f, 2>) -> f32 { return dot(a[0], b[0]) + dot(a[1], b[1]); }

fn store_y(sum: Tile, row: u32, column: u32) {
  for (var r = 0u; r < 8u; r++) {
    if (row + r < p.m) {
      for (var c = 0u; c < 8u; c++) {
        if (column + c < p.n) { y[(row + r) * p.n + column + c] = elem(sum[r][c / 4u][c % 4u]); }
      }
    }
  }
}

@compute @workgroup_size(across, down)
fn forward(@builtin(global_invocation_id) id: vec3u) {
  if (id.y * 8u >= p.m || id.x * 8u >= p.n) { return; }
  store_y(base_nt(id.y * 8u, id.x * 8u), id.y * 8u, id.x * 8u);
}

@compute @workgroup_size(across, down)
fn forward_lora(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y * 8u;
  let column = id.x * 8u;
  if (row >= p.m || column >= p.n) { return; }
  var sum = base_nt(row, column);
  for (var q = 0u; q < p.rank / 4u; q++) {
    var right: array<vec4f, 8>;
    for (var c = 0u; c < 8u; c++) { right[c] = vec4f(up[min(column + c, p.n - 1u) * (p.rank / 4u) + q]); }
    for (var r = 0u; r < 8u; r++) {
      let left = thin[min(row + r, p.m - 1u) * (p.rank / 4u) + q];
      sum[r][0] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
      sum[r][1] += vec4f(dot(left, right[4]), dot(left, right[5]), dot(left, right[6]), dot(left, right[7]));
    }
  }
  store_y(sum, row, column);
}

@group(0) @binding(5) var<storage, read> dy: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read_write> dx: array<elem>;
@group(0) @binding(8) var<storage, read> lower: array<vec4<elem>>;

fn base_nn(row: u32, step: u32) -> Tile {
  let steps = p.k / 8u;
  var dy_base: array<u32, 8>;
  for (var i = 0u; i < 8u; i++) { dy_base[i] = min(row + i, p.m - 1u) * (p.width / 4u); }
  var sum: Tile;
  for (var q = 0u; q < p.width / 4u; q++) {
    var right: array<array<vec4f, 2>, 4>;
    for (var i = 0u; i < 4u; i++) {
      let n = min(4u * q + i, p.n - 1u);
      right[i] = eight(n * steps + step, scale_of(n * steps + step, n, p.offset));
    }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(dy[dy_base[r] + q]);
      // Four products are added before they meet the sum: a quarter of the roundings, 2e-6 at n = 14,336.
      for (var h = 0u; h < 2u; h++) {
        sum[r][h] += left.x * right[0][h] + left.y * right[1][h] + left.z * right[2][h] + left.w * right[3][h];
      }
    }
  }
  return sum;
}

fn store_dx(sum: Tile, row: u32, step: u32) {
  for (var r = 0u; r < 8u; r++) {
    if (row + r < p.m) {
      for (var c = 0u; c < 8u; c++) { dx[(row + r) * p.k + 8u * step + c] = elem(sum[r][c / 4u][c % 4u]); }
    }
  }
}

@compute @workgroup_size(across, down)
fn backward(@builtin(global_invocation_id) id: vec3u) {
  if (id.y * 8u >= p.m || id.x >= p.k / 8u) { return; }
  store_dx(base_nn(id.y * 8u, id.x), id.y * 8u, id.x);
}

@compute @workgroup_size(across, down)
fn backward_lora(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y * 8u;
  if (row >= p.m || id.x >= p.k / 8u) { return; }
  var sum = base_nn(row, id.x);
  for (var rank = 0u; rank < p.rank; rank++) {
    let at = rank * (p.k / 4u) + 2u * id.x;
    let right = array<vec4f, 2>(vec4f(lower[at]), vec4f(lower[at + 1u]));
    for (var r = 0u; r < 8u; r++) {
      let left = thin[min(row + r, p.m - 1u) * (p.rank / 4u) + rank / 4u][rank % 4u];
      sum[r][0] += left * right[0];
      sum[r][1] += left * right[1];
    }
  }
  store_dx(sum, row, id.x);
}

@group(0) @binding(5) var<storage, read> ragged: array<elem>; // (m, n)
@group(0) @binding(6) var<storage, read_write> padded: array<elem>; // (m, width)

@compute @workgroup_size(64)
fn backward_pad(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
       @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.m * p.width) { return; }
  let column = i % p.width;
  padded[i] = select(elem(0.0), ragged[i / p.width * p.n + min(column, p.n - 1u)], column < p.n);
}
