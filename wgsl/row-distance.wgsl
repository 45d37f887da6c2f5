// Distances between rows.                                                 a, b (rows, columns), in parts   y (rows)
//   squared: y = mean((a - b)^2)          cosine: y = a · b / (|a| |b|)
// Rows are dealt out as lib/rows says.
import package::lib::part::{part, wide, part_size, total};
import package::lib::rows::{group_size, lanes, Place, place_of, sum_lanes};

struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<part>;
@group(0) @binding(2) var<storage, read> b: array<part>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> da: array<part>;

@compute @workgroup_size(group_size)
fn squared(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let columns = select(0u, p.columns, at.row < p.rows);
  var sum = wide();
  for (var c = at.lane; c < columns; c += lanes) {
    let difference = wide(a[base + c]) - wide(b[base + c]);
    sum += difference * difference;
  }
  let all = sum_lanes(at.lane, total(sum));
  if (at.lane == 0u && at.row < p.rows) { y[at.row] = all / f32(p.columns * part_size); }
}

// da = 2 dy (a - b) / columns; db is the same with a and b exchanged
@compute @workgroup_size(group_size)
fn squared_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                    @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  if (at.row >= p.rows) { return; }
  let base = at.row * p.columns;
  let slope = 2.0 * dy[at.row] / f32(p.columns * part_size);
  for (var c = at.lane; c < p.columns; c += lanes) {
    da[base + c] = part(slope * (wide(a[base + c]) - wide(b[base + c])));
  }
}

// a · a, a · b, b · b of one row; the squares are at least a tiny number, so that a zero row gives 0, not NaN.
fn products(at: Place) -> vec3f {
  let base = at.row * p.columns;
  let columns = select(0u, p.columns, at.row < p.rows);
  var aa = wide();
  var ab = wide();
  var bb = wide();
  for (var c = at.lane; c < columns; c += lanes) {
    let left = wide(a[base + c]);
    let right = wide(b[base + c]);
    aa += left * left;
    ab += left * right;
    bb += right * right;
  }
  let sum_aa = sum_lanes(at.lane, total(aa));
  let sum_ab = sum_lanes(at.lane, total(ab));
  let sum_bb = sum_lanes(at.lane, total(bb));
  return vec3f(max(sum_aa, 1e-24), sum_ab, max(sum_bb, 1e-24));
}

@compute @workgroup_size(group_size)
fn cosine(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let s = products(at);
  if (at.lane == 0u && at.row < p.rows) { y[at.row] = s.y * inverseSqrt(s.x) * inverseSqrt(s.z); }
}

// da = dy (b / (|a| |b|) - cos a / |a|^2)
@compute @workgroup_size(group_size)
fn cosine_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                   @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let s = products(at);
  if (at.row >= p.rows) { return; }
  let base = at.row * p.columns;
  let to_b = dy[at.row] * inverseSqrt(s.x) * inverseSqrt(s.z);
  let to_a = to_b * s.y / s.x;
  for (var c = at.lane; c < p.columns; c += lanes) {
    da[base + c] = part(to_b * wide(b[base + c]) - to_a * wide(a[base + c]));
  }
}
