// Distances between rows.                                                                a, b (rows, columns)   y (rows)
//   squared: y = mean((a - b)^2)          cosine: y = a · b / (|a| |b|)
// One workgroup of 64 a row.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::sum_workgroup;

struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<elem>;
@group(0) @binding(2) var<storage, read> b: array<elem>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> da: array<elem>;

@compute @workgroup_size(64)
fn squared(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  var sum = 0.0;
  for (var i = row * p.columns + lane; i < (row + 1u) * p.columns; i += 64u) {
    let difference = f32(a[i]) - f32(b[i]);
    sum += difference * difference;
  }
  sum = sum_workgroup(lane, sum);
  if (lane == 0u) { y[row] = sum / f32(p.columns); }
}

// da = 2 dy (a - b) / columns; db is the same with a and b exchanged
@compute @workgroup_size(64)
fn squared_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                    @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.rows * p.columns) { return; }
  da[i] = elem(2.0 * dy[i / p.columns] * (f32(a[i]) - f32(b[i])) / f32(p.columns));
}

// a · a, a · b, b · b of one row; the squares are at least a tiny number, so that a zero row gives 0, not NaN.
fn products(lane: u32, row: u32) -> vec3f {
  var sums = vec3f();
  for (var i = row * p.columns + lane; i < (row + 1u) * p.columns; i += 64u) {
    let left = f32(a[i]);
    let right = f32(b[i]);
    sums += vec3f(left * left, left * right, right * right);
  }
  let all = vec3f(sum_workgroup(lane, sums.x), sum_workgroup(lane, sums.y), sum_workgroup(lane, sums.z));
  return vec3f(max(all.x, 1e-24), all.y, max(all.z, 1e-24));
}

@compute @workgroup_size(64)
fn cosine(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let s = products(lane, row);
  if (lane == 0u) { y[row] = s.y * inverseSqrt(s.x) * inverseSqrt(s.z); }
}

// da = dy (b / (|a| |b|) - cos a / |a|^2)
@compute @workgroup_size(64)
fn cosine_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                   @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let s = products(lane, row);
  let inverse = inverseSqrt(s.x) * inverseSqrt(s.z);
  for (var i = row * p.columns + lane; i < (row + 1u) * p.columns; i += 64u) {
    da[i] = elem(dy[row] * inverse * (f32(b[i]) - f32(a[i]) * s.y / s.x));
  }
}
