// y = softmax(x) over the last dimension.                                            x, y (rows, columns), in parts
// Rows are dealt out as lib/rows says. The maximum is taken away first, so exp never overflows.
import package::lib::part::{part, wide, total, largest};
import package::lib::rows::{group_size, lanes, place_of, sum_lanes, max_lanes};

struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<part>;
@group(0) @binding(2) var<storage, read_write> y: array<part>;

@compute @workgroup_size(group_size)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let columns = select(0u, p.columns, at.row < p.rows);
  var most = wide(-3.4e38);
  for (var c = at.lane; c < columns; c += lanes) { most = max(most, wide(x[base + c])); }
  let shift = max_lanes(at.lane, largest(most));
  var sum = wide();
  for (var c = at.lane; c < columns; c += lanes) { sum += exp(wide(x[base + c]) - shift); }
  let scale = 1.0 / sum_lanes(at.lane, total(sum));
  for (var c = at.lane; c < columns; c += lanes) { y[base + c] = part(exp(wide(x[base + c]) - shift) * scale); }
}

// dx = out * (dy - sum(dy * out)),   out being what forward wrote
@group(0) @binding(1) var<storage, read> out: array<part>;
@group(0) @binding(2) var<storage, read> dy: array<part>;
@group(0) @binding(3) var<storage, read_write> dx: array<part>;

@compute @workgroup_size(group_size)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let columns = select(0u, p.columns, at.row < p.rows);
  var dots = wide();
  for (var c = at.lane; c < columns; c += lanes) { dots += wide(dy[base + c]) * wide(out[base + c]); }
  let dot = sum_lanes(at.lane, total(dots));
  for (var c = at.lane; c < columns; c += lanes) {
    dx[base + c] = part(wide(out[base + c]) * (wide(dy[base + c]) - dot));
  }
}
