// y = a · b on matrix units: f16 factors, f32 sums. Shapes and stores are in lib/product.wgsl.
//   plain: y = a · b      onto: y = base + alpha · (a · b)      split: sums over parts of k, for split-sum.wgsl
// A workgroup stages `depth` of k of its rows of a and columns of b as they lie in memory; its subgroups, units_down ×
// units_across of them, each hold tiles_down × tiles_across results of 16 × 16. A matrix load must not pass the end of
// its array, so ragged edges are clamped while staging. Results leave through workgroup memory, one 16 × 16 at a time.
// Sizes that vec4 loads run along must be multiples of four.
import package::lib::elem::elem;
import package::lib::product::{p, a, b, a_transposed, b_transposed, range_of, put, put_onto, put_part};

override subgroup: u32 = 32;
override units_down: u32 = 4;
override units_across: u32 = 2;
override tiles_down: u32 = 2;
override tiles_across: u32 = 4;
const lanes = subgroup * units_down * units_across;
const depth = 32u;
const rows = 16u * units_down * tiles_down;
const columns = 16u * units_across * tiles_across;
// Rows of staged values are 8 longer than they need be, so that a column of them does not fall on one bank.
const a_width = select(depth, rows, a_transposed != 0u);
const b_width = select(columns, depth, b_transposed != 0u);
const a_size = (a_width + 8u) * (rows * depth / a_width);
const b_size = (b_width + 8u) * (columns * depth / b_width);
const results = tiles_down * tiles_across;
const drained_size = 256u * units_down * units_across;
var<workgroup> staged_a: array<elem, a_size>;
var<workgroup> staged_b: array<elem, b_size>;
var<workgroup> drained: array<f32, drained_size>;

alias Left = subgroup_matrix_left<elem, 16, 16>;
alias Right = subgroup_matrix_right<elem, 16, 16>;
alias Result = subgroup_matrix_result<f32, 16, 16>;

// Copies depth × rows of a and depth × columns of b; beyond the end of k they are zero.
fn stage(group: vec3u, lane: u32, k: u32, end: u32) {
  let batch = group.z / p.splits;
  for (var i = lane; i < rows * depth / 4u; i += lanes) {
    let outer = 4u * i / a_width;
    let inner = 4u * i % a_width;
    let row = min(group.y * rows + select(outer, inner, a_transposed != 0u), p.m - select(1u, 4u, a_transposed != 0u));
    let at = k + select(inner, outer, a_transposed != 0u);
    let from_a = batch * p.a_stride + select(row * p.k + at, at * p.m + row, a_transposed != 0u) / 4u;
    var value = vec4<elem>();
    if (end > at) { value = a[from_a]; }
    for (var c = 0u; c < 4u; c++) { staged_a[outer * (a_width + 8u) + inner + c] = value[c]; }
  }
  for (var i = lane; i < columns * depth / 4u; i += lanes) {
    let outer = 4u * i / b_width;
    let inner = 4u * i % b_width;
    let wanted = group.x * columns + select(inner, outer, b_transposed != 0u);
    let column = min(wanted, p.n - select(4u, 1u, b_transposed != 0u));
    let at = k + select(outer, inner, b_transposed != 0u);
    let from_b = batch * p.b_stride + select(at * p.n + column, column * p.k + at, b_transposed != 0u) / 4u;
    var value = vec4<elem>();
    if (end > at) { value = b[from_b]; }
    for (var c = 0u; c < 4u; c++) { staged_b[outer * (b_width + 8u) + inner + c] = value[c]; }
  }
}

fn left_at(row: u32, k: u32) -> Left {
  if (a_transposed != 0u) { return subgroupMatrixLoad<Left, col_major>(&staged_a, k * (a_width + 8u) + row, a_width + 8u); }
  return subgroupMatrixLoad<Left, row_major>(&staged_a, row * (a_width + 8u) + k, a_width + 8u);
}

fn right_at(k: u32, column: u32) -> Right {
  if (b_transposed != 0u) { return subgroupMatrixLoad<Right, col_major>(&staged_b, column * (b_width + 8u) + k, b_width + 8u); }
  return subgroupMatrixLoad<Right, row_major>(&staged_b, k * (b_width + 8u) + column, b_width + 8u);
}

fn sum_of(group: vec3u, lane: u32, unit: u32) -> array<Result, results> {
  let row = unit / units_across * tiles_down * 16u;
  let column = unit % units_across * tiles_across * 16u;
  let range = range_of(group);
  var sum: array<Result, results>;
  for (var k = range.x; k < range.y; k += depth) {
    stage(group, lane, k, range.y);
    workgroupBarrier();
    for (var part = 0u; part < depth; part += 16u) {
      var right: array<Right, tiles_across>;
      for (var c = 0u; c < tiles_across; c++) { right[c] = right_at(part, column + 16u * c); }
      for (var r = 0u; r < tiles_down; r++) {
        let left = left_at(row + 16u * r, part);
        for (var c = 0u; c < tiles_across; c++) {
          let i = r * tiles_across + c;
          sum[i] = subgroupMatrixMultiplyAccumulate(left, right[c], sum[i]);
        }
      }
    }
    workgroupBarrier();
  }
  return sum;
}

// Where element `e` of the tile that is being drained lies in y.
fn place(group: vec3u, unit: u32, tile: u32, e: u32) -> vec2u {
  let row = group.y * rows + (unit / units_across * tiles_down + tile / tiles_across) * 16u + e / 16u;
  let column = group.x * columns + (unit % units_across * tiles_across + tile % tiles_across) * 16u + e % 16u;
  return vec2u(row, column);
}

@compute @workgroup_size(lanes)
fn plain(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32,
         @builtin(subgroup_id) unit: u32) {
  var sum = sum_of(group, lane, unit);
  let first = unit * 256u;
  for (var tile = 0u; tile < results; tile++) {
    subgroupMatrixStore<row_major>(&drained, first, sum[tile], 16u);
    workgroupBarrier();
    for (var e = lane % subgroup; e < 256u; e += subgroup) {
      let at = place(group, unit, tile, e);
      put(group.z, at.x, at.y, drained[first + e]);
    }
    workgroupBarrier();
  }
}

@compute @workgroup_size(lanes)
fn onto(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32,
         @builtin(subgroup_id) unit: u32) {
  var sum = sum_of(group, lane, unit);
  let first = unit * 256u;
  for (var tile = 0u; tile < results; tile++) {
    subgroupMatrixStore<row_major>(&drained, first, sum[tile], 16u);
    workgroupBarrier();
    for (var e = lane % subgroup; e < 256u; e += subgroup) {
      let at = place(group, unit, tile, e);
      put_onto(group.z, at.x, at.y, drained[first + e]);
    }
    workgroupBarrier();
  }
}

@compute @workgroup_size(lanes)
fn split(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32,
         @builtin(subgroup_id) unit: u32) {
  var sum = sum_of(group, lane, unit);
  let first = unit * 256u;
  for (var tile = 0u; tile < results; tile++) {
    subgroupMatrixStore<row_major>(&drained, first, sum[tile], 16u);
    workgroupBarrier();
    for (var e = lane % subgroup; e < 256u; e += subgroup) {
      let at = place(group, unit, tile, e);
      put_part(group.z, at.x, at.y, drained[first + e]);
    }
    workgroupBarrier();
  }
}
