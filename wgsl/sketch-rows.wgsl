// Rows on their way into the buffer of a sketch.           buffer (rows of it, columns)   x (rows, columns)
// buffer[to + i] = weights[r] * (x[r] - shift - sum / count),   r = from + i: rows centred about their batch's mean.
// Rows of weight 0 are not read and become zeros, which change nothing.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { rows: u32, columns: u32, from_row: u32, to_row: u32, count: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> shift: array<f32>;
@group(0) @binding(4) var<storage, read> sum: array<f32>;
@group(0) @binding(5) var<storage, read_write> buffer: array<f32>;

@compute @workgroup_size(64)
fn append(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.rows * p.columns) { return; }
  let row = p.from_row + i / p.columns;
  let column = i % p.columns;
  var value = 0.0;
  if (weights[row] != 0.0) {
    value = weights[row] * (f32(x[row * p.columns + column]) - shift[column] - sum[column] / p.count);
  }
  buffer[p.to_row * p.columns + i] = value;
}

// buffer[to] = sqrt(before * count / (before + count)) * (sum / count - total / before): the row that joining a batch to
// what was seen before adds to the scatter (Chan, Golub and LeVeque).
struct JoinParams { columns: u32, to_row: u32, count: f32, before: f32 }
@group(0) @binding(0) var<uniform> j: JoinParams;
@group(0) @binding(1) var<storage, read> batch: array<f32>;
@group(0) @binding(2) var<storage, read> total: array<f32>;

@compute @workgroup_size(64)
fn join(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = group.x * 64u + lane;
  if (column >= j.columns) { return; }
  let factor = sqrt(j.before * (j.count / (j.before + j.count)));
  buffer[j.to_row * j.columns + column] = factor * (batch[column] / j.count - total[column] / j.before);
}

// buffer = sketch, and zeros behind it.                                                    sketch (rows, columns)
struct ReplaceParams { size: u32, kept: u32 }
@group(0) @binding(0) var<uniform> q: ReplaceParams;
@group(0) @binding(1) var<storage, read> sketch: array<f32>;

@compute @workgroup_size(64)
fn replace(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= q.size) { return; }
  if (i < q.kept) { buffer[i] = sketch[i]; } else { buffer[i] = 0.0; }
}
