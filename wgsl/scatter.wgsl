// total += sum over rows r of weights[r] * z zᵀ,   z = x[r] - shift.      x (rows, 4 * width)   weights (rows)
// Only the upper triangle, in blocks of 8 × 8: block j (j + 1) / 2 + i is block row i ≤ block column j. An invocation
// makes one block over the rows of one slice, from vec4 loads, and subtracts the shift as it loads: no centred copy.
// Slices are short, so that f32 sums stay good; `fold` then adds them to a total kept as a pair hi + lo (48 bits).
// Rows of weight 0 are not read at all: they may hold anything, NaN included.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::pairs::{added, Pair};

struct Params { width: u32, blocks: u32, first_row: u32, end_row: u32, rows_each: u32, squared: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> shift: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> part: array<vec4f>; // (slices, blocks, 8, 8)

fn triangle(j: u32) -> u32 { return j * (j + 1u) / 2u; }

@compute @workgroup_size(64)
fn blocks(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let tile = group.x * 64u + lane;
  if (tile >= p.blocks) { return; }
  let root = sqrt(8.0 * f32(tile) + 1.0);
  var j = u32(0.5 * root - 0.5);
  // The root is rounded: step to the block column that the tile lies in.
  let first = triangle(j);
  if (tile < first) { j--; }
  let next = triangle(j + 1u);
  if (next <= tile) { j++; }
  let i = tile - triangle(j);
  // A last block that is four columns wide reads its columns twice; the host ignores what comes of it.
  let last = p.width - 1u;
  let at = vec4u(2u * i, min(2u * i + 1u, last), 2u * j, min(2u * j + 1u, last));
  let shift_0 = shift[at.x];
  let shift_1 = shift[at.y];
  let shift_2 = shift[at.z];
  let shift_3 = shift[at.w];
  let begin = p.first_row + group.y * p.rows_each;
  let end = min(begin + p.rows_each, p.end_row);
  var sum: array<array<vec4f, 2>, 8>;
  for (var row = begin; row < end; row++) {
    let weight = weights[row];
    if (weight != 0.0) {
      let base = row * p.width;
      let left = array<vec4f, 2>(weight * (vec4f(x[base + at.x]) - shift_0), weight * (vec4f(x[base + at.y]) - shift_1));
      let right_0 = vec4f(x[base + at.z]) - shift_2;
      let right_1 = vec4f(x[base + at.w]) - shift_3;
      for (var r = 0u; r < 8u; r++) {
        sum[r][0] += left[r / 4u][r % 4u] * right_0;
        sum[r][1] += left[r / 4u][r % 4u] * right_1;
      }
    }
  }
  let base = (group.y * p.blocks + tile) * 16u;
  for (var r = 0u; r < 8u; r++) {
    part[base + 2u * r] = sum[r][0];
    part[base + 2u * r + 1u] = sum[r][1];
  }
}

// part[s] = sum over the rows of slice s of weights[r] * z, or of weights[r] * z² when squared.  part (slices, 4 * width)
@compute @workgroup_size(64)
fn columns(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = group.x * 64u + lane;
  if (column >= p.width) { return; }
  let begin = p.first_row + group.y * p.rows_each;
  let end = min(begin + p.rows_each, p.end_row);
  let moved = shift[column];
  var sum = vec4f(0.0);
  for (var row = begin; row < end; row++) {
    let weight = weights[row];
    if (weight != 0.0) {
      let z = vec4f(x[row * p.width + column]) - moved;
      sum += weight * select(z, z * z, p.squared == 1u);
    }
  }
  part[group.y * p.width + column] = sum;
}

// (hi, lo) += sum over slices of part, as lib/pairs.wgsl adds.
struct FoldParams { size: u32, slices: u32, zero: u32 } // size in vec4s
@group(0) @binding(0) var<uniform> f: FoldParams;
@group(0) @binding(1) var<storage, read> slices: array<vec4f>; // (slices, size)
@group(0) @binding(2) var<storage, read_write> hi: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> lo: array<vec4f>;

@compute @workgroup_size(64)
fn fold(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= f.size) { return; }
  var pair = Pair(hi[i], lo[i]);
  for (var s = 0u; s < f.slices; s++) { pair = added(pair, slices[s * f.size + i], f.zero); }
  hi[i] = pair.hi;
  lo[i] = pair.lo;
}

// wide[r, c] = x[r, c], with zeros where c is past the end: rows become a multiple of four long.
struct WidenParams { rows: u32, columns: u32, wide: u32 }
@group(0) @binding(0) var<uniform> w: WidenParams;
@group(0) @binding(1) var<storage, read> narrow: array<elem>;
@group(0) @binding(2) var<storage, read_write> wide: array<elem>;

@compute @workgroup_size(64)
fn widen(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= w.rows * w.wide) { return; }
  let column = i % w.wide;
  if (column < w.columns) { wide[i] = narrow[i / w.wide * w.columns + column]; } else { wide[i] = elem(0.0); }
}
