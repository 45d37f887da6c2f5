// y = x / sqrt(mean(x^2) + eps) * weight, row by row.            x, y (rows, columns)   weight (columns)
// One workgroup of 64 a row: each invocation walks every 64th column.
// forward saves rstd = 1 / sqrt(mean(x^2) + eps), f32, one a row, and the backward entries read it.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::sum_workgroup;

struct Params { rows: u32, columns: u32, eps: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> weight: array<elem>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  var squares = 0.0;
  for (var c = lane; c < p.columns; c += 64u) {
    let value = f32(x[base + c]);
    squares += value * value;
  }
  let scale = inverseSqrt(sum_workgroup(lane, squares) / f32(p.columns) + p.eps);
  if (lane == 0u) { rstd[row] = scale; }
  for (var c = lane; c < p.columns; c += 64u) {
    y[base + c] = elem(f32(x[base + c]) * scale * f32(weight[c]));
  }
}

// dx = rstd * (dy * weight - xhat * mean(dy * weight * xhat)),   xhat = x * rstd
@group(0) @binding(3) var<storage, read> dy: array<elem>;
@group(0) @binding(4) var<storage, read> scales: array<f32>; // what forward saved as rstd
@group(0) @binding(5) var<storage, read_write> dx: array<elem>;

@compute @workgroup_size(64)
fn backward_x(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
              @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  let scale = scales[row];
  var dot = 0.0;
  for (var c = lane; c < p.columns; c += 64u) {
    dot += f32(dy[base + c]) * f32(weight[c]) * f32(x[base + c]);
  }
  let slope = sum_workgroup(lane, dot) * scale * scale / f32(p.columns);
  for (var c = lane; c < p.columns; c += 64u) {
    dx[base + c] = elem(scale * (f32(dy[base + c]) * f32(weight[c]) - f32(x[base + c]) * slope));
  }
}

// dweight = sum over rows of dy * xhat, in two stages so that the order of addition never changes: first each of
// `slices` row ranges sums its own rows, then column_sum.wgsl adds the slices.
@group(0) @binding(6) var<storage, read_write> slice_sums: array<f32>; // (slices, columns)
override slices: u32 = 32;

@compute @workgroup_size(64)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = group.x * 64u + lane;
  if (column >= p.columns) { return; }
  let rows_each = (p.rows + slices - 1u) / slices;
  let end = min(p.rows, (group.y + 1u) * rows_each);
  var sum = 0.0;
  for (var row = group.y * rows_each; row < end; row++) {
    sum += f32(dy[row * p.columns + column]) * f32(x[row * p.columns + column]) * scales[row];
  }
  slice_sums[group.y * p.columns + column] = sum;
}
