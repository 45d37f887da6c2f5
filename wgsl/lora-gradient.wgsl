// dpair = thinᵀ · x: the gradient of one matrix of a low-rank update.      thin (m, rank) f32   x (m, wide)
//   sums (slices, rank, wide), or (slices, wide, rank) where `transposed` is 1.   rank and wide are multiples of 4
// Rows are cut into `slices` of `each`, summed apart and added in order by column-sum.wgsl: always the same order, and
// no atomics. With `by_id` 1 every adapter of lora-batch.wgsl is a slice: it sums all rows whose id is its own.
// An invocation makes 4 × 8 elements from vec4 loads.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { m: u32, rank: u32, wide: u32, each: u32, span: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> thin: array<vec4f>;
@group(0) @binding(2) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
@group(0) @binding(4) var<storage, read> ids: array<u32>; // of each `span` rows; any u32 without by_id

override transposed: u32 = 0;
override by_id: u32 = 0;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let pairs = (p.wide + 7u) / 8u;
  let i = flat_workgroup(group, groups) * 64u + lane;
  let quad = i / pairs; // four ranks
  if (quad >= p.rank / 4u) { return; }
  let width = p.wide / 4u;
  let left = 2u * (i % pairs);
  let right = min(left + 1u, width - 1u);
  var sum: array<array<vec4f, 2>, 4>;
  let begin = select(group.z * p.each, 0u, by_id == 1u);
  for (var row = begin; row < min(p.m, begin + p.each); row++) {
    if (by_id == 1u) {
      if (ids[row / p.span] != group.z) { continue; }
    }
    let ranks = thin[row * (p.rank / 4u) + quad];
    let values = array<vec4f, 2>(vec4f(x[row * width + left]), vec4f(x[row * width + right]));
    for (var r = 0u; r < 4u; r++) {
      sum[r][0] += ranks[r] * values[0];
      sum[r][1] += ranks[r] * values[1];
    }
  }
  let base = group.z * p.rank * p.wide;
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < 8u; c++) {
      let rank = 4u * quad + r;
      let column = 4u * left + c;
      let at = select(rank * p.wide + column, column * p.rank + rank, transposed == 1u);
      if (column < p.wide) { sums[base + at] = sum[r][c / 4u][c % 4u]; }
    }
  }
}
