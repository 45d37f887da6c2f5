// Choices along rows: the largest element, the k largest, or one drawn at random.            x (rows, columns)
// One workgroup of 64 a row. Ties go to the smaller index, so the result does not depend on the adapter.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { rows: u32, columns: u32, k: u32, inverse_temperature: f32, seed: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>; // (rows) or (rows, k)
@group(0) @binding(3) var<storage, read_write> values: array<elem>; // (rows, k)

var<workgroup> best_value: array<f32, 64>;
var<workgroup> best_index: array<u32, 64>;
const nothing = 0xffffffffu;

fn better(value: f32, index: u32, than_value: f32, than_index: u32) -> bool {
  return value > than_value || (value == than_value && index < than_index);
}

// The best of what the lanes found: index in best_index[0], value in best_value[0].
fn best_of_workgroup(lane: u32, value: f32, index: u32) {
  workgroupBarrier();
  best_value[lane] = value;
  best_index[lane] = index;
  for (var half = 32u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half && better(best_value[lane + half], best_index[lane + half], best_value[lane], best_index[lane])) {
      best_value[lane] = best_value[lane + half];
      best_index[lane] = best_index[lane + half];
    }
  }
  workgroupBarrier();
}

// Round i finds the largest element that comes after the one of round i - 1.
@compute @workgroup_size(64)
fn top_k(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  var last_value = 3.4e38;
  var last_index = 0u;
  for (var round = 0u; round < p.k; round++) {
    var value = -3.4e38;
    var index = nothing;
    for (var c = lane; c < p.columns; c += 64u) {
      let candidate = f32(x[base + c]);
      let open = round == 0u || better(last_value, last_index, candidate, c);
      if (open && better(candidate, c, value, index)) { value = candidate; index = c; }
    }
    best_of_workgroup(lane, value, index);
    last_value = best_value[0];
    last_index = best_index[0];
    if (lane == 0u) {
      indices[row * p.k + round] = last_index;
      values[row * p.k + round] = elem(last_value);
    }
  }
}

// PCG hash of O'Neill, 2014, as a uniform number in (0, 1).
fn uniform_number(i: u32) -> f32 {
  let state = (i ^ (p.seed * 0x9e3779b9u)) * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (f32(((word >> 22u) ^ word) >> 8u) + 0.5) / 16777216.0;
}

// Gumbel's trick: the largest of x / temperature - log(-log(u)) is distributed as softmax(x / temperature).
@compute @workgroup_size(64)
fn sample(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  var value = -3.4e38;
  var index = nothing;
  for (var c = lane; c < p.columns; c += 64u) {
    let candidate = f32(x[base + c]) * p.inverse_temperature - log(-log(uniform_number(base + c)));
    if (better(candidate, c, value, index)) { value = candidate; index = c; }
  }
  best_of_workgroup(lane, value, index);
  if (lane == 0u) { indices[row] = best_index[0]; }
}
