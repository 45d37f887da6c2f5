// y[r] = log sum exp(logits[r]) - logits[r, targets[r]]: the loss of each row.   logits (rows, columns)   targets (rows)
// One workgroup of 64 a row. A target past the last column gives NaN. forward saves lse for backward.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::{sum_workgroup, max_workgroup};

struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<elem>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  var largest = -3.4e38;
  for (var c = lane; c < p.columns; c += 64u) { largest = max(largest, f32(logits[base + c])); }
  largest = max_workgroup(lane, largest);
  var sum = 0.0;
  for (var c = lane; c < p.columns; c += 64u) { sum += exp(f32(logits[base + c]) - largest); }
  sum = sum_workgroup(lane, sum);
  if (lane == 0u) {
    let target_column = targets[row];
    let nan = bitcast<f32>(0x7fc00000u | min(p.rows, 0u));
    lse[row] = largest + log(sum);
    y[row] = select(nan, lse[row] - f32(logits[base + min(target_column, p.columns - 1u)]), target_column < p.columns);
  }
}

// dlogits = dy * (softmax(logits) - onehot(target)),   dy one a row
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> logs: array<f32>; // what forward saved as lse
@group(0) @binding(5) var<storage, read_write> dlogits: array<elem>;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.rows * p.columns) { return; }
  let row = i / p.columns;
  let hit = select(0.0, 1.0, targets[row] == i % p.columns);
  dlogits[i] = elem(dy[row] * (exp(f32(logits[i]) - logs[row]) - hit));
}
