// What the kernels for y = a · b share: sizes, operands, and the three ways to store a tile of sums.
//   y (batch, m, n)   a (m, k), or (k, m) with a_transposed   b (k, n), or (n, k) with b_transposed
// An invocation owns 8 rows × 8 columns of y; a workgroup has `across` × `down` of them side by side.
import package::lib::elem::{elem, stored};
import package::lib::activation::activated;

struct Params {
  m: u32, n: u32, k: u32, chunk: u32, splits: u32, // a split sums `chunk` of k
  a_stride: u32, b_stride: u32, // from one matrix to the next, in vec4
  base_row: u32, base_stride: u32, alpha: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<stored>>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;
@group(0) @binding(4) var<storage, read> base: array<elem>;
@group(0) @binding(3) var<storage, read_write> parts: array<f32>;

override a_transposed: u32 = 0;
override b_transposed: u32 = 0;
override across: u32 = 8;
override down: u32 = 8;
override activation: u32 = 0; // of what is stored, but for parts: 1 SiLU, 2 GELU
alias Sums = array<array<vec4f, 2>, 8>;

// The part of y that an invocation makes, and the part of k that it sums.
struct Tile { row: u32, column: u32, batch: u32, split: u32, begin: u32, end: u32 }

fn tile_of(group: vec3u, local: vec3u) -> Tile {
  var t: Tile;
  t.row = (group.y * down + local.y) * 8u;
  t.column = (group.x * across + local.x) * 8u;
  t.batch = group.z / p.splits;
  t.split = group.z % p.splits;
  t.begin = range_of(group).x;
  t.end = range_of(group).y;
  return t;
}

// The part of k that a workgroup sums, apart from the tile, so that loops with barriers are seen to be uniform.
fn range_of(group: vec3u) -> vec2u {
  let begin = group.z % p.splits * p.chunk;
  return vec2u(begin, min(begin + p.chunk, p.k));
}

fn put(batch: u32, row: u32, column: u32, sum: f32) {
  if (row < p.m && column < p.n) {
    y[(batch * p.m + row) * p.n + column] = elem(activated(activation, p.alpha * sum));
  }
}

// y = base + alpha * sum; base_row is 0 where one row of base serves all rows.
fn put_onto(batch: u32, row: u32, column: u32, sum: f32) {
  if (row < p.m && column < p.n) {
    let from_base = f32(base[batch * p.base_stride + row * p.base_row + column]);
    y[(batch * p.m + row) * p.n + column] = elem(activated(activation, from_base + p.alpha * sum));
  }
}

// parts (batch, splits, m, n); matrix = batch * splits + split
fn put_part(matrix: u32, row: u32, column: u32, sum: f32) {
  if (row < p.m && column < p.n) { parts[(matrix * p.m + row) * p.n + column] = sum; }
}

fn store(t: Tile, sum: Sums) {
  for (var r = 0u; r < 8u; r++) {
    for (var c = 0u; c < 8u; c++) { put(t.batch, t.row + r, t.column + c, sum[r][c / 4u][c % 4u]); }
  }
}

fn store_onto(t: Tile, sum: Sums) {
  for (var r = 0u; r < 8u; r++) {
    for (var c = 0u; c < 8u; c++) { put_onto(t.batch, t.row + r, t.column + c, sum[r][c / 4u][c % 4u]); }
  }
}

fn store_part(t: Tile, sum: Sums) {
  let matrix = t.batch * p.splits + t.split;
  for (var r = 0u; r < 8u; r++) {
    for (var c = 0u; c < 8u; c++) { put_part(matrix, t.row + r, t.column + c, sum[r][c / 4u][c % 4u]); }
  }
}
