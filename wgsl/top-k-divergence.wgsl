// Forward KL from a teacher known by its k likeliest tokens; all others are one bucket, the tail.
//   y[r] = sum_j t_j log(t_j / q_j) + tail_t log(tail_t / tail_q),   q = softmax(student[r]),  tail = 1 - sum of the k
//   student (rows, columns)    ids, probabilities (rows, k), k <= 64, ids of a row distinct    y (rows)
// One workgroup of 64 a row, one lane a token of the k. With no tail it is the exact KL.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::{sum_workgroup, max_workgroup};

struct Params { rows: u32, columns: u32, k: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> student: array<elem>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read> probabilities: array<elem>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> dstudent: array<elem>;

const smallest = 1e-6; // floor of a tail: what f16 probabilities leave over is not known better

fn normalizer(lane: u32, base: u32) -> f32 {
  var largest = -3.4e38;
  for (var c = lane; c < p.columns; c += 64u) { largest = max(largest, f32(student[base + c])); }
  largest = max_workgroup(lane, largest);
  var sum = 0.0;
  for (var c = lane; c < p.columns; c += 64u) { sum += exp(f32(student[base + c]) - largest); }
  return largest + log(sum_workgroup(lane, sum));
}

struct Row { lse: f32, id: u32, t: f32, log_q: f32, tail_t: f32, tail_q: f32 }

// Everything a lane needs of its row; t is 0 in lanes past k.
fn look(row: u32, lane: u32) -> Row {
  let base = row * p.columns;
  let lse = normalizer(lane, base);
  let mine = row * p.k + min(lane, p.k - 1u);
  let id = min(ids[mine], p.columns - 1u);
  let log_q = f32(student[base + id]) - lse;
  let within = lane < p.k;
  let t = select(0.0, f32(probabilities[mine]), within);
  let tail_t = 1.0 - sum_workgroup(lane, t);
  let tail_q = 1.0 - sum_workgroup(lane, select(0.0, exp(log_q), within));
  return Row(lse, id, t, log_q, max(tail_t, 0.0), max(tail_q, smallest));
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let r = look(row, lane);
  let sum = sum_workgroup(lane, select(0.0, r.t * (log(max(r.t, 1e-30)) - r.log_q), r.t > 0.0));
  let tail = select(0.0, r.tail_t * log(r.tail_t / r.tail_q), r.tail_t > smallest);
  if (lane == 0u) { y[row] = sum + tail; }
}

// dstudent = dy (q - t) for the k, and dy q (1 - tail_t / tail_q) for the rest
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  let r = look(row, lane);
  // Without a tail term the weights sum to 1 - tail_t, which scales q; the k get the same factor.
  let has_tail = r.tail_t > smallest;
  let mass = select(1.0 - r.tail_t, 1.0, has_tail);
  let rest = select(mass, 1.0 - r.tail_t / r.tail_q, has_tail);
  for (var c = lane; c < p.columns; c += 64u) {
    dstudent[base + c] = elem(dy[row] * exp(f32(student[base + c]) - r.lse) * rest);
  }
  storageBarrier(); // the k are written over what the loop wrote for them
  if (lane < p.k) { dstudent[base + r.id] = elem(dy[row] * (exp(r.log_q) * mass - r.t)); }
}
