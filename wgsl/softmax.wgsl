// y = softmax(x) over the last dimension.                                                     x, y (rows, columns)
// One workgroup of 64 a row. The maximum is taken away first, so exp never overflows.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::{sum_workgroup, max_workgroup};

struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  var largest = -3.4e38;
  for (var c = lane; c < p.columns; c += 64u) { largest = max(largest, f32(x[base + c])); }
  largest = max_workgroup(lane, largest);
  var sum = 0.0;
  for (var c = lane; c < p.columns; c += 64u) { sum += exp(f32(x[base + c]) - largest); }
  let scale = 1.0 / sum_workgroup(lane, sum);
  for (var c = lane; c < p.columns; c += 64u) { y[base + c] = elem(exp(f32(x[base + c]) - largest) * scale); }
}

// dx = out * (dy - sum(dy * out)),   out being what forward wrote
@group(0) @binding(1) var<storage, read> out: array<elem>;
@group(0) @binding(2) var<storage, read> dy: array<elem>;
@group(0) @binding(3) var<storage, read_write> dx: array<elem>;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  var dot = 0.0;
  for (var c = lane; c < p.columns; c += 64u) { dot += f32(dy[base + c]) * f32(out[base + c]); }
  dot = sum_workgroup(lane, dot);
  for (var c = lane; c < p.columns; c += 64u) {
    dx[base + c] = elem(f32(out[base + c]) * (f32(dy[base + c]) - dot));
  }
}
