// y[i, j] = scores[i, j] exp(sum over j < k <= i of a d_k) d_j  for j <= i, else 0;   y[i, i] += skip
//   scores (batch, chunks, G, Q, Q)   d (batch, chunks, H, Q)   a, skip (H)   y (batch, chunks, H, Q, Q)
// The 1-semiseparable mask of state-space duality; chunked order: see ssd-chunks.wgsl; H heads share G groups.
// Each segment is added up on the walk down a column, not as a difference of two sums: nothing is cancelled, and no
// exponent is positive when a is negative. The gradient goes to the prefix sums of a d, of which a segment is the
// difference. One workgroup a head of a chunk, a lane a column; Q is at most 64.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::sum_workgroup;

struct Params { rows: u32, heads: u32, groups: u32, chunk: u32, has_skip: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read> d: array<f32>;
@group(0) @binding(3) var<storage, read> a: array<elem>;
@group(0) @binding(4) var<storage, read> skip: array<elem>; // read only where has_skip is 1
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// Where the scores of row (batch, chunk, head) begin.
fn scores_of(row: u32) -> u32 {
  return (row / p.heads * p.groups + row % p.heads / (p.heads / p.groups)) * p.chunk * p.chunk;
}

@compute @workgroup_size(64)
fn mask(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) j: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows || j >= p.chunk) { return; }
  let rate = f32(a[row % p.heads]);
  let base = row * p.chunk * p.chunk + j;
  let own = d[row * p.chunk + j];
  var segment = 0.0;
  for (var i = 0u; i < p.chunk; i++) {
    var value = 0.0;
    if (i > j) { segment += rate * d[row * p.chunk + i]; }
    if (i >= j) { value = scores[scores_of(row) + i * p.chunk + j] * exp(segment) * own; }
    if (i == j && p.has_skip != 0u) { value += f32(skip[row % p.heads]); }
    y[base + i * p.chunk] = value;
  }
}

// With E = dy ∘ y: dd_j = sum_i E_ij / d_j, and the slope of prefix sum i is that of row i of E minus that of column i.
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> dd: array<f32>;
@group(0) @binding(6) var<storage, read_write> dprefix: array<f32>;
@group(0) @binding(7) var<storage, read_write> traces: array<f32>; // (batch, chunks, H): sum of dy_ii, the share of dskip

@compute @workgroup_size(64)
fn mask_backward_decay(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                       @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let rate = f32(a[row % p.heads]);
  let first = row * p.chunk;
  let base = first * p.chunk;
  var corner = 0.0;
  if (lane < p.chunk) {
    var down = 0.0; // the column, without its diagonal
    var segment = 0.0;
    for (var i = lane + 1u; i < p.chunk; i++) {
      segment += rate * d[first + i];
      down += dy[base + i * p.chunk + lane] * scores[scores_of(row) + i * p.chunk + lane] * exp(segment);
    }
    var across = 0.0;
    segment = 0.0;
    for (var j = lane; j > 0u; j--) {
      segment += rate * d[first + j];
      let at = lane * p.chunk + j - 1u;
      across += dy[base + at] * scores[scores_of(row) + at] * exp(segment) * d[first + j - 1u];
    }
    corner = dy[base + lane * p.chunk + lane];
    dd[first + lane] = down + corner * scores[scores_of(row) + lane * p.chunk + lane];
    dprefix[first + lane] = across - down * d[first + lane];
  }
  let trace = sum_workgroup(lane, corner);
  if (lane == 0u) { traces[row] = trace; }
}

// dscores = sum over the heads of a group. One workgroup a group of a chunk, a lane a column.
@group(0) @binding(5) var<storage, read_write> dscores: array<f32>;

@compute @workgroup_size(64)
fn mask_backward_scores(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                        @builtin(local_invocation_index) j: u32) {
  let part = flat_workgroup(group, groups);
  if (part >= p.rows / p.heads * p.groups || j >= p.chunk) { return; }
  let share = p.heads / p.groups;
  let base = part * p.chunk * p.chunk + j;
  for (var i = 0u; i < p.chunk; i++) { dscores[base + i * p.chunk] = 0.0; }
  for (var k = 0u; k < share; k++) {
    let row = part / p.groups * p.heads + part % p.groups * share + k;
    let rate = f32(a[row % p.heads]);
    let own = d[row * p.chunk + j];
    var segment = 0.0;
    for (var i = j; i < p.chunk; i++) {
      if (i > j) { segment += rate * d[row * p.chunk + i]; }
      dscores[base + i * p.chunk] += dy[(row * p.chunk + i) * p.chunk + j] * exp(segment) * own;
    }
  }
}
