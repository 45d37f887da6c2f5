// Low-rank updates of several adapters in one batch: each `span` rows in turn have the adapter that `ids` names; an id of
// `count` or more means none.  x (m, k)   a (count, r, k)   b (count, n, r)   factors (count)   thin (m, r) f32
//   narrow_nt: thin = factor · x · aᵀ        backward_narrow: thin = factor · dy · b (here x is dy, and wide is n)
//   widen_nt:  y = base + thin · bᵀ          backward_widen:  dx = thin · a          r, k and n are multiples of 4
// narrow: a workgroup of 64 for four ranks of one row, side by side along the sum, whose parts are added in workgroup
// memory in order. widen: an invocation for four columns of one row. gradients are those of lora-gradient.wgsl.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::parts::{keep_parts, whole_sum};

struct Params { m: u32, rank: u32, wide: u32, count: u32, span: u32 } // wide: k or n
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> pairs: array<vec4<elem>>; // a or b
@group(0) @binding(3) var<storage, read> factors: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>; // thin

// Where the matrix of `row` begins, in vec4. Ids past the end are read as the last one and thrown away.
fn matrix_of(row: u32) -> u32 { return min(ids[row / p.span], p.count - 1u) * p.rank * (p.wide / 4u); }
fn has_adapter(row: u32) -> bool { return row < p.m && ids[min(row, p.m - 1u) / p.span] < p.count; }

fn finish(row: u32, quad: u32, lane: u32, sum: vec4f) {
  keep_parts(lane, 0u, sum);
  workgroupBarrier();
  if (lane < 4u && row < p.m) {
    let factor = factors[min(ids[row / p.span], p.count - 1u)];
    sums[row * p.rank + 4u * quad + lane] = select(0.0, factor * whole_sum(0u, lane, 64u), has_adapter(row));
  }
}

@compute @workgroup_size(64)
fn narrow_nt(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
             @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups);
  let row = i / (p.rank / 4u);
  let quad = i % (p.rank / 4u);
  let width = p.wide / 4u;
  let end = select(0u, width, has_adapter(row));
  let first = matrix_of(min(row, p.m - 1u)) + 4u * quad * width;
  var sum = vec4f();
  for (var q = lane; q < end; q += 64u) {
    let left = vec4f(x[row * width + q]);
    for (var c = 0u; c < 4u; c++) { sum[c] += dot(left, vec4f(pairs[first + c * width + q])); }
  }
  finish(row, quad, lane, sum);
}

@compute @workgroup_size(64)
fn backward_narrow(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
             @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups);
  let row = i / (p.rank / 4u);
  let quad = i % (p.rank / 4u);
  let width = p.wide / 4u;
  let end = select(0u, width, has_adapter(row));
  let first = matrix_of(min(row, p.m - 1u)) + quad;
  var sum = vec4f();
  for (var q = lane; q < end; q += 64u) {
    let left = vec4f(x[row * width + q]);
    for (var c = 0u; c < 4u; c++) { sum += left[c] * vec4f(pairs[first + (4u * q + c) * (p.rank / 4u)]); }
  }
  finish(row, quad, lane, sum);
}

@group(0) @binding(4) var<storage, read> thin: array<vec4f>;
@group(0) @binding(5) var<storage, read> base: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<elem>>;

@compute @workgroup_size(64)
fn widen_nt(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  let row = i / (p.wide / 4u);
  if (row >= p.m) { return; }
  let width = p.rank / 4u;
  let first = matrix_of(row) + i % (p.wide / 4u) * 4u * width;
  var sum = vec4f(base[i]);
  if (has_adapter(row)) {
    for (var q = 0u; q < width; q++) {
      let left = thin[row * width + q];
      for (var c = 0u; c < 4u; c++) { sum[c] += dot(left, vec4f(pairs[first + c * width + q])); }
    }
  }
  y[i] = vec4<elem>(sum);
}

@compute @workgroup_size(64)
fn backward_widen(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  let width = p.wide / 4u;
  let row = i / width;
  if (row >= p.m) { return; }
  let first = matrix_of(row) + i % width;
  var sum = vec4f();
  if (has_adapter(row)) {
    for (var rank = 0u; rank < p.rank; rank++) {
      sum += thin[row * (p.rank / 4u) + rank / 4u][rank % 4u] * vec4f(pairs[first + rank * width]);
    }
  }
  y[i] = vec4<elem>(sum);
}
