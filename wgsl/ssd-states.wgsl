// How states leave a chunk, are carried, and enter the next. Chunked order: see ssd-chunks.wgsl; H heads share G groups.
//   decay  y[i, n] = x[i, n] exp(segments[i]) d[i], each head from the rows of its group; without d where has_steps is 0
//          x (batch, chunks, G, Q, width)   segments, d (batch, chunks, H, Q)   y (batch, chunks, H, Q, width)
//          A workgroup of 16 × 4 makes four rows.
//   carry  before[k + 1] = exp(e_k) before[k] + own[k],  e_k the last prefix sum of chunk k
//          own, before (batch, chunks, H, cells)   prefix (batch, chunks, H, Q)   state (batch, H, cells)
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::sum_workgroup;

struct Params {
  size: u32, heads: u32, groups: u32, chunk: u32, chunks: u32, width: u32, cells: u32, has_steps: u32, has_state: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> segments: array<f32>;
@group(0) @binding(3) var<storage, read> d: array<f32>; // read only where has_steps is 1
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn step_size(row: u32) -> f32 {
  if (p.has_steps == 0u) { return 1.0; }
  return d[row];
}
// The row of x that row (batch, chunk, head, token) is made from.
fn shared_row(row: u32) -> u32 {
  let matrix = row / p.chunk;
  return (matrix / p.heads * p.groups + matrix % p.heads / (p.heads / p.groups)) * p.chunk + row % p.chunk;
}

@compute @workgroup_size(16, 4)
fn decay(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_id) local: vec3u) {
  let row = flat_workgroup(group, groups) * 4u + local.y;
  if (row >= p.size / p.width) { return; }
  let factor = exp(segments[row]) * step_size(row);
  let first = shared_row(row) * p.width;
  for (var n = local.x; n < p.width; n += 16u) { y[row * p.width + n] = x[first + n] * factor; }
}

// dx = sum over the heads of a group
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(16, 4)
fn decay_backward_x(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                    @builtin(local_invocation_id) local: vec3u) {
  let at = flat_workgroup(group, groups) * 4u + local.y; // a row of x: (batch, chunk, group, token)
  let share = p.heads / p.groups;
  if (at >= p.size / p.width / share) { return; }
  let part = at / p.chunk;
  let first = (part / p.groups * p.heads + part % p.groups * share) * p.chunk + at % p.chunk;
  for (var n = local.x; n < p.width; n += 16u) {
    var sum = 0.0;
    for (var k = 0u; k < share; k++) {
      let row = first + k * p.chunk;
      sum += dy[row * p.width + n] * exp(segments[row]) * step_size(row);
    }
    dx[at * p.width + n] = sum;
  }
}

// dsegments = sum_n dy y and dd = sum_n dy x exp(segments); one invocation a row
@group(0) @binding(5) var<storage, read_write> dsegments: array<f32>;
@group(0) @binding(6) var<storage, read_write> dd: array<f32>; // written only where has_steps is 1

@compute @workgroup_size(64)
fn decay_backward_rows(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                       @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups) * 64u + lane;
  if (row >= p.size / p.width) { return; }
  let first = shared_row(row) * p.width;
  var sum = 0.0;
  for (var n = 0u; n < p.width; n++) { sum += dy[row * p.width + n] * x[first + n]; }
  sum *= exp(segments[row]);
  dsegments[row] = sum * step_size(row);
  if (p.has_steps != 0u) { dd[row] = sum; }
}

// One invocation a cell of a head's state. Starts from `state` and leaves the last state there, where has_state is 1.
@group(0) @binding(1) var<storage, read> own: array<f32>;
@group(0) @binding(3) var<storage, read_write> before: array<f32>;
@group(0) @binding(5) var<storage, read_write> state: array<f32>;

fn chunk_decay(matrix: u32) -> f32 { return exp(segments[(matrix + 1u) * p.chunk - 1u]); }

@compute @workgroup_size(64)
fn carry(@builtin(global_invocation_id) id: vec3u) {
  let cell = id.x;
  let head = id.y;
  if (cell >= p.cells) { return; }
  let kept = (id.z * p.heads + head) * p.cells + cell;
  var h = 0.0;
  if (p.has_state != 0u) { h = state[kept]; }
  for (var k = 0u; k < p.chunks; k++) {
    let matrix = (id.z * p.chunks + k) * p.heads + head;
    before[matrix * p.cells + cell] = h;
    h = chunk_decay(matrix) * h + own[matrix * p.cells + cell];
  }
  if (p.has_state != 0u) { state[kept] = h; }
}

// down = dL/d(own): what the chunks behind send to the end of chunk k
@group(0) @binding(1) var<storage, read> dbefore: array<f32>;
@group(0) @binding(3) var<storage, read_write> down: array<f32>;

@compute @workgroup_size(64)
fn carry_backward(@builtin(global_invocation_id) id: vec3u) {
  let cell = id.x;
  if (cell >= p.cells) { return; }
  var g = 0.0;
  for (var k = p.chunks; k > 0u; k--) {
    let matrix = (id.z * p.chunks + k - 1u) * p.heads + id.y;
    down[matrix * p.cells + cell] = g;
    g = dbefore[matrix * p.cells + cell] + chunk_decay(matrix) * g;
  }
}

// The slope of e_k is exp(e_k) times down · before; the other prefix sums of the chunk have none. One workgroup a matrix.
@group(0) @binding(1) var<storage, read> down_saved: array<f32>;
@group(0) @binding(3) var<storage, read> before_saved: array<f32>;
@group(0) @binding(5) var<storage, read_write> dprefix: array<f32>;

@compute @workgroup_size(64)
fn carry_backward_prefix(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                         @builtin(local_invocation_index) lane: u32) {
  let matrix = flat_workgroup(group, groups);
  if (matrix >= p.size / p.cells) { return; }
  var sum = 0.0;
  for (var i = lane; i < p.cells; i += 64u) {
    sum += down_saved[matrix * p.cells + i] * before_saved[matrix * p.cells + i];
  }
  sum = sum_workgroup(lane, sum) * chunk_decay(matrix);
  if (lane < p.chunk) { dprefix[matrix * p.chunk + lane] = select(0.0, sum, lane == p.chunk - 1u); }
}
