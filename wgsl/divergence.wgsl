// A divergence between two softmax distributions for each row, and its slope for the student.
//   q = softmax(student / temperature), teacher's t likewise, both (rows, columns), in parts;   y (rows)
//   kind 0 forward KL: sum t log(t/q)                     1 reverse KL: sum q log(q/t)
//        2 JSD(w): w KL(t|m) + (1-w) KL(q|m), m = w t + (1-w) q
//        3 skewed KL(w): KL(t|m), m = w t + (1-w) q       4 skewed reverse KL(w): KL(q|m), m = (1-w) t + w q
// Rows are dealt out as lib/rows says. forward saves the log sum exp of both, and backward reads them.
// With f the sum's term and g = df/dq:  dstudent = dy q (g - sum q g) / temperature.
import package::lib::part::{part, wide, total, largest};
import package::lib::rows::{group_size, lanes, place_of, sum_lanes, max_lanes};

struct Params { rows: u32, columns: u32, temperature: f32, weight: f32 }
override kind: u32 = 0;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> student: array<part>;
@group(0) @binding(2) var<storage, read> teacher: array<part>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>; // (rows, 2): the student's, the teacher's
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> logs: array<f32>; // what forward saved as lse
@group(0) @binding(5) var<storage, read_write> dstudent: array<part>;

fn student_at(i: u32) -> wide { return wide(student[i]) / p.temperature; }
fn teacher_at(i: u32) -> wide { return wide(teacher[i]) / p.temperature; }

// The term of the sum, and its slope by q, from log q and log t.
struct Term { value: wide, slope: wide }

fn term(log_q: wide, log_t: wide) -> Term {
  let q = exp(log_q);
  let t = exp(log_t);
  let w = p.weight;
  switch kind {
    case 1u: { return Term(q * (log_q - log_t), log_q - log_t + 1.0); }
    case 2u: {
      // At w = 0 and 1 the definition itself gives 0: JSD there is no KL.
      let log_m = log(w * t + (1.0 - w) * q + 1e-38);
      return Term(w * t * (log_t - log_m) + (1.0 - w) * q * (log_q - log_m), (1.0 - w) * (log_q - log_m));
    }
    case 3u: {
      let m = w * t + (1.0 - w) * q + 1e-38;
      return Term(t * (log_t - log(m)), -(1.0 - w) * t / m);
    }
    case 4u: {
      let m = (1.0 - w) * t + w * q + 1e-38;
      return Term(q * (log_q - log(m)), log_q - log(m) + 1.0 - w * q / m);
    }
    default: { return Term(t * (log_t - log_q), wide()); } // its slope is taken apart below, where q cancels
  }
}

@compute @workgroup_size(group_size)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let end = base + select(0u, p.columns, at.row < p.rows);
  var most_s = wide(-3.4e38);
  var most_t = wide(-3.4e38);
  for (var i = base + at.lane; i < end; i += lanes) {
    most_s = max(most_s, student_at(i));
    most_t = max(most_t, teacher_at(i));
  }
  let shift_s = max_lanes(at.lane, largest(most_s));
  let shift_t = max_lanes(at.lane, largest(most_t));
  var sum_s = wide();
  var sum_t = wide();
  for (var i = base + at.lane; i < end; i += lanes) {
    sum_s += exp(student_at(i) - shift_s);
    sum_t += exp(teacher_at(i) - shift_t);
  }
  let lse_s = shift_s + log(sum_lanes(at.lane, total(sum_s)));
  let lse_t = shift_t + log(sum_lanes(at.lane, total(sum_t)));
  var sum = wide();
  for (var i = base + at.lane; i < end; i += lanes) { sum += term(student_at(i) - lse_s, teacher_at(i) - lse_t).value; }
  let all = sum_lanes(at.lane, total(sum));
  if (at.lane == 0u && at.row < p.rows) {
    y[at.row] = all;
    lse[2u * at.row] = lse_s;
    lse[2u * at.row + 1u] = lse_t;
  }
}

@compute @workgroup_size(group_size)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let row = min(at.row, p.rows - 1u);
  let base = at.row * p.columns;
  let end = base + select(0u, p.columns, at.row < p.rows);
  let lse_s = logs[2u * row];
  let lse_t = logs[2u * row + 1u];
  let factor = dy[row] / p.temperature;
  var means = wide();
  if (kind != 0u) {
    for (var i = base + at.lane; i < end; i += lanes) {
      let log_q = student_at(i) - lse_s;
      means += exp(log_q) * term(log_q, teacher_at(i) - lse_t).slope;
    }
  }
  let mean = sum_lanes(at.lane, total(means));
  for (var i = base + at.lane; i < end; i += lanes) {
    let log_q = student_at(i) - lse_s;
    let log_t = teacher_at(i) - lse_t;
    let q = exp(log_q);
    if (kind == 0u) { dstudent[i] = part(factor * (q - exp(log_t))); }
    else { dstudent[i] = part(factor * q * (term(log_q, log_t).slope - mean)); }
  }
}
