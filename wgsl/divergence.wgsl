// A divergence between two softmax distributions for each row, and its slope for the student.
//   q = softmax(student / temperature), teacher's t likewise, both (rows, columns);   y (rows)
//   kind 0 forward KL: sum t log(t/q)                     1 reverse KL: sum q log(q/t)
//        2 JSD(w): w KL(t|m) + (1-w) KL(q|m), m = w t + (1-w) q
//        3 skewed KL(w): KL(t|m), m = w t + (1-w) q       4 skewed reverse KL(w): KL(q|m), m = (1-w) t + w q
// One workgroup of 64 a row. With f the sum's term and g = df/dq:  dstudent = dy q (g - sum q g) / temperature.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::{sum_workgroup, max_workgroup};

struct Params { rows: u32, columns: u32, temperature: f32, weight: f32 }
override kind: u32 = 0;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> student: array<elem>;
@group(0) @binding(2) var<storage, read> teacher: array<elem>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dstudent: array<elem>;

// log sum exp of one row of each, at the temperature.
fn normalizers(lane: u32, base: u32) -> vec2f {
  var most = vec2f(-3.4e38);
  for (var c = lane; c < p.columns; c += 64u) { most = max(most, logits(base + c)); }
  most = vec2f(max_workgroup(lane, most.x), max_workgroup(lane, most.y));
  var sum = vec2f();
  for (var c = lane; c < p.columns; c += 64u) { sum += exp(logits(base + c) - most); }
  return most + log(vec2f(sum_workgroup(lane, sum.x), sum_workgroup(lane, sum.y)));
}

fn logits(i: u32) -> vec2f { return vec2f(f32(student[i]), f32(teacher[i])) / p.temperature; }

// The term of the sum and its slope by q, from log q and log t.
fn term(log_q: f32, log_t: f32) -> vec2f {
  let q = exp(log_q);
  let t = exp(log_t);
  let w = p.weight;
  switch kind {
    case 1u: { return vec2f(q * (log_q - log_t), log_q - log_t + 1.0); }
    case 2u: {
      // At w = 0 and 1 the definition itself gives 0: JSD there is no KL.
      let log_m = log(w * t + (1.0 - w) * q + 1e-38);
      return vec2f(w * t * (log_t - log_m) + (1.0 - w) * q * (log_q - log_m), (1.0 - w) * (log_q - log_m));
    }
    case 3u: {
      let m = w * t + (1.0 - w) * q + 1e-38;
      return vec2f(t * (log_t - log(m)), -(1.0 - w) * t / m);
    }
    case 4u: {
      let m = (1.0 - w) * t + w * q + 1e-38;
      return vec2f(q * (log_q - log(m)), log_q - log(m) + 1.0 - w * q / m);
    }
    default: { return vec2f(t * (log_t - log_q), 0.0); } // its slope is taken apart below, where q cancels
  }
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  let lse = normalizers(lane, base);
  var sum = 0.0;
  for (var c = lane; c < p.columns; c += 64u) {
    let log_p = logits(base + c) - lse;
    sum += term(log_p.x, log_p.y).x;
  }
  sum = sum_workgroup(lane, sum);
  if (lane == 0u) { y[row] = sum; }
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let base = row * p.columns;
  let lse = normalizers(lane, base);
  var mean = 0.0;
  for (var c = lane; c < p.columns; c += 64u) {
    let log_p = logits(base + c) - lse;
    mean += exp(log_p.x) * term(log_p.x, log_p.y).y;
  }
  mean = sum_workgroup(lane, mean);
  let factor = dy[row] / p.temperature;
  for (var c = lane; c < p.columns; c += 64u) {
    let log_p = logits(base + c) - lse;
    let q = exp(log_p.x);
    let slope = select(q * (term(log_p.x, log_p.y).y - mean), q - exp(log_p.y), kind == 0u);
    dstudent[base + c] = elem(factor * slope);
  }
}
