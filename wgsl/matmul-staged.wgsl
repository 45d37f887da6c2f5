// y = a · b with tiles staged through workgroup memory, for GPUs: shapes and stores are in lib/product.wgsl.
//   plain: y = a · b      onto: y = base + alpha · (a · b)      split: sums over parts of k, for split-sum.wgsl
// A workgroup copies 16 of k of its rows of a and its columns of b, as blocks of 4 × 4 with k slowest, so that the inner
// loop reads vec4s whichever way the factors lie. Sizes that vec4 loads run along must be multiples of four.
import package::lib::product::{p, a, b, a_transposed, b_transposed, across, down, Sums, Tile};
import package::lib::product::{tile_of, range_of, store, store_onto, store_part};

const depth = 16u;
const a_quads = 2u * down; // vec4s of rows of a for one k
const b_quads = 2u * across;
const a_size = depth * a_quads;
const b_size = depth * b_quads;
var<workgroup> staged_a: array<vec4f, a_size>;
var<workgroup> staged_b: array<vec4f, b_size>;

// Column i is k + i, component r is row 4 * quad + r.
fn block_a(t: Tile, quad: u32, k: u32) -> mat4x4f {
  var piece: mat4x4f;
  for (var i = 0u; i < 4u; i++) {
    if (a_transposed != 0u) {
      let at = t.batch * p.a_stride + (k + i) * (p.m / 4u) + min(quad, p.m / 4u - 1u);
      if (t.end > k + i) { piece[i] = vec4f(a[at]); }
    } else {
      let at = t.batch * p.a_stride + (min(4u * quad + i, p.m - 1u) * p.k + k) / 4u;
      if (t.end > k) { piece[i] = vec4f(a[at]); }
    }
  }
  if (a_transposed != 0u) { return piece; }
  return transpose(piece);
}

// Column i is k + i, component c is column 4 * quad + c.
fn block_b(t: Tile, quad: u32, k: u32) -> mat4x4f {
  var piece: mat4x4f;
  for (var i = 0u; i < 4u; i++) {
    if (b_transposed != 0u) {
      let at = t.batch * p.b_stride + (min(4u * quad + i, p.n - 1u) * p.k + k) / 4u;
      if (t.end > k) { piece[i] = vec4f(b[at]); }
    } else {
      let at = t.batch * p.b_stride + (k + i) * (p.n / 4u) + min(quad, p.n / 4u - 1u);
      if (t.end > k + i) { piece[i] = vec4f(b[at]); }
    }
  }
  if (b_transposed != 0u) { return transpose(piece); }
  return piece;
}

fn sum_of(t: Tile, group: vec3u, local: vec3u) -> Sums {
  var sum: Sums;
  let range = range_of(group);
  for (var k = range.x; k < range.y; k += depth) {
    for (var i = local.y * across + local.x; i < 4u * (a_quads + b_quads); i += across * down) {
      // The lanes of a subgroup take neighbours along the dimension that lies together in memory.
      if (i < 4u * a_quads) {
        let quad = select(i / 4u, i % a_quads, a_transposed != 0u);
        let part = select(i % 4u, i / a_quads, a_transposed != 0u) * 4u;
        let piece = block_a(t, group.y * a_quads + quad, k + part);
        for (var c = 0u; c < 4u; c++) { staged_a[(part + c) * a_quads + quad] = piece[c]; }
      } else {
        let j = i - 4u * a_quads;
        let quad = select(j % b_quads, j / 4u, b_transposed != 0u);
        let part = select(j / b_quads, j % 4u, b_transposed != 0u) * 4u;
        let piece = block_b(t, group.x * b_quads + quad, k + part);
        for (var c = 0u; c < 4u; c++) { staged_b[(part + c) * b_quads + quad] = piece[c]; }
      }
    }
    workgroupBarrier();
    for (var i = 0u; i < depth; i++) {
      let left = array<vec4f, 2>(staged_a[i * a_quads + 2u * local.y], staged_a[i * a_quads + 2u * local.y + 1u]);
      let right = array<vec4f, 2>(staged_b[i * b_quads + 2u * local.x], staged_b[i * b_quads + 2u * local.x + 1u]);
      for (var r = 0u; r < 8u; r++) {
        sum[r][0] += left[r / 4u][r % 4u] * right[0];
        sum[r][1] += left[r / 4u][r % 4u] * right[1];
      }
    }
    workgroupBarrier();
  }
  return sum;
}

@compute @workgroup_size(across, down)
fn plain(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let t = tile_of(group, local);
  store(t, sum_of(t, group, local));
}

@compute @workgroup_size(across, down)
fn onto(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let t = tile_of(group, local);
  store_onto(t, sum_of(t, group, local));
}

@compute @workgroup_size(across, down)
fn split(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let t = tile_of(group, local);
  store_part(t, sum_of(t, group, local));
}
