// y[r] = log sum exp(logits[r]) - logits[r, targets[r]]: the loss of each row.   logits (rows, columns), in parts
// Rows are dealt out as lib/rows says. A target past the last column gives NaN.   targets, y (rows)
// forward saves lse for backward.
import package::lib::part::{part, wide, part_size, place, pick, total, largest};
import package::lib::rows::{group_size, lanes, place_of, sum_lanes, max_lanes};

struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<part>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

@compute @workgroup_size(group_size)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let columns = select(0u, p.columns, at.row < p.rows);
  var most = wide(-3.4e38);
  for (var c = at.lane; c < columns; c += lanes) { most = max(most, wide(logits[base + c])); }
  let shift = max_lanes(at.lane, largest(most));
  var sum = wide();
  for (var c = at.lane; c < columns; c += lanes) { sum += exp(wide(logits[base + c]) - shift); }
  let log_sum = shift + log(sum_lanes(at.lane, total(sum)));
  if (at.lane == 0u && at.row < p.rows) {
    let column = targets[at.row];
    let nan = bitcast<f32>(0x7fc00000u | min(p.rows, 0u));
    lse[at.row] = log_sum;
    let within = column < p.columns * part_size;
    let near = wide(logits[base + select(0u, column / part_size, within)]);
    y[at.row] = select(nan, log_sum - pick(near, column % part_size), within);
  }
}

// dlogits = dy * (softmax(logits) - onehot(target)),   dy one a row
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> logs: array<f32>; // what forward saved as lse
@group(0) @binding(5) var<storage, read_write> dlogits: array<part>;

@compute @workgroup_size(group_size)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  if (at.row >= p.rows) { return; }
  let base = at.row * p.columns;
  let log_sum = logs[at.row];
  let slope = dy[at.row];
  for (var c = at.lane; c < p.columns; c += lanes) {
    dlogits[base + c] = part(slope * exp(wide(logits[base + c]) - log_sum));
  }
  // The lane that wrote the part of the target writes it again.
  let c = targets[at.row] / part_size;
  if (c < p.columns && c % lanes == at.lane) {
    let hit = place(targets[at.row] % part_size);
    dlogits[base + c] = part(slope * (exp(wide(logits[base + c]) - log_sum) - hit));
  }
}
