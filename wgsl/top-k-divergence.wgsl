// KL from a teacher known by its k likeliest tokens, forward or reverse; all others are one bucket, the tail.
//   forward y[r] = sum_j t_j log(t_j / q_j) + tail_t log(tail_t / tail_q),   q = softmax(student[r]),  tail = 1 - sum of the k
//   reverse y[r] = sum_j q_j log(q_j / t_j) + tail_q log(tail_q / tail_t),   t no smaller than `smallest`
//   student (rows, columns), in parts   ids, probabilities (rows, k), k <= 64, ids of a row distinct   y (rows)
// Rows are dealt out as lib/rows says. With no tail it is the exact KL. forward saves what backward needs of a row:
// log sum exp, and the factors of q for the k (`mass`; y itself in reverse) and for all others (`rest`).
import package::lib::elem::elem;
import package::lib::part::{part, wide, part_size, pick, total, largest};
import package::lib::grid::flat_workgroup;
import package::lib::rows::{group_size, lanes, place_of, sum_lanes, max_lanes};

struct Params { rows: u32, columns: u32, k: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> student: array<part>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read> probabilities: array<elem>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> looks: array<f32>; // (rows, 3): log sum exp, mass, rest

override reverse: u32 = 0u;
const smallest = 1e-6; // floor of a tail: what f16 probabilities leave over is not known better

@compute @workgroup_size(group_size)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let within = at.row < p.rows;
  let columns = select(0u, p.columns, within);
  var most = wide(-3.4e38);
  for (var c = at.lane; c < columns; c += lanes) { most = max(most, wide(student[base + c])); }
  let shift = max_lanes(at.lane, largest(most));
  var sum = wide();
  for (var c = at.lane; c < columns; c += lanes) { sum += exp(wide(student[base + c]) - shift); }
  let lse = shift + log(sum_lanes(at.lane, total(sum)));
  var known = vec3f(); // of the k: t, q, t log(t / q)
  for (var j = at.lane; j < select(0u, p.k, within); j += lanes) {
    let id = min(ids[at.row * p.k + j], p.columns * part_size - 1u);
    let log_q = pick(wide(student[base + id / part_size]), id % part_size) - lse;
    let t = f32(probabilities[at.row * p.k + j]);
    let forward_term = select(0.0, t * (log(max(t, 1e-30)) - log_q), t > 0.0);
    let reverse_term = exp(log_q) * (log_q - log(max(t, smallest)));
    known += vec3f(t, exp(log_q), select(forward_term, reverse_term, reverse == 1u));
  }
  let tail_t = max(1.0 - sum_lanes(at.lane, known.x), 0.0);
  let tail_q = max(1.0 - sum_lanes(at.lane, known.y), smallest);
  let all = sum_lanes(at.lane, known.z);
  if (at.lane != 0u || !within) { return; }
  looks[3u * at.row] = lse;
  if (reverse == 1u) {
    let tail_log = log(tail_q / max(tail_t, smallest));
    let value = all + tail_q * tail_log;
    y[at.row] = value;
    looks[3u * at.row + 1u] = value;
    looks[3u * at.row + 2u] = tail_log - value;
    return;
  }
  let has_tail = tail_t > smallest;
  y[at.row] = all + select(0.0, tail_t * log(tail_t / tail_q), has_tail);
  // Without a tail term the weights sum to 1 - tail_t, which scales q; the k get the same factor.
  looks[3u * at.row + 1u] = select(1.0 - tail_t, 1.0, has_tail);
  looks[3u * at.row + 2u] = select(1.0 - tail_t, 1.0 - tail_t / tail_q, has_tail);
}

// dstudent = dy q rest, as if no token were among the k
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read> seen: array<f32>; // what forward saved as looks
@group(0) @binding(6) var<storage, read_write> dstudent: array<part>;

@compute @workgroup_size(group_size)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  if (at.row >= p.rows) { return; }
  let base = at.row * p.columns;
  let lse = seen[3u * at.row];
  let factor = dy[at.row] * seen[3u * at.row + 2u];
  for (var c = at.lane; c < p.columns; c += lanes) {
    dstudent[base + c] = part(factor * exp(wide(student[base + c]) - lse));
  }
}

// and then for the k: dstudent = dy (q mass - t), in reverse dy q (log(q / t) - y). One invocation a token; `columns` counts parts here too.
@group(0) @binding(1) var<storage, read> logits: array<elem>; // student
@group(0) @binding(6) var<storage, read_write> dlogits: array<elem>; // dstudent

@compute @workgroup_size(64)
fn backward_known(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                  @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  let row = i / p.k;
  if (row >= p.rows) { return; }
  let width = p.columns * part_size;
  let at = row * width + min(ids[i], width - 1u);
  let log_q = f32(logits[at]) - seen[3u * row];
  let t = f32(probabilities[i]);
  let mass = seen[3u * row + 1u];
  let slope = select(exp(log_q) * mass - t, exp(log_q) * (log_q - log(max(t, smallest)) - mass), reverse == 1u);
  dlogits[at] = elem(dy[row] * slope);
}
