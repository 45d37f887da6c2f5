// KL between the relations of a teacher and a student: rows softmax(a · aᵀ * scale), one matrix for each relation head.
//   student (B, tokens, heads, d)   teacher (B, tokens, heads, e)   y (B, heads, tokens) = sum_j t_ij log(t_ij / s_ij)
//   stats (B, heads, tokens) = (log sum exp of the student's row, of the teacher's)
// An invocation owns 8 rows and walks the others in tiles of 8, making both scores again in the backward pass: nothing of
// size tokens² is stored. a stands on both sides of the product, and scores are symmetric, so one tile gives the slopes
// of the rows i and of the rows j:
//   dstudent_i = scale * sum_j (W_ij + W_ji) student_j,   W_ij = dy_i (softmax(student)_ij - softmax(teacher)_ij)
import package::lib::elem::elem;
import package::lib::attention::{lanes, own, sums, sum_at, Bases, Tile, hidden, none_yet};

struct Params {
  tokens: u32, heads: u32, student_quads: u32, teacher_quads: u32, // quads: vec4 of one head
  student_scale: f32, teacher_scale: f32, causal: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> student: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> teacher: array<vec4<elem>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec2f>;

fn bases(group: vec3u, first: u32, quads: u32) -> Bases {
  var base: Bases;
  for (var r = 0u; r < 8u; r++) {
    base[r] = ((group.z * p.tokens + min(first + r, p.tokens - 1u)) * p.heads + group.y) * quads;
  }
  return base;
}

fn student_scores(row: Bases, other: Bases) -> Tile {
  var s: Tile;
  for (var d = 0u; d < p.student_quads; d++) {
    var right: array<vec4f, 8>;
    for (var c = 0u; c < 8u; c++) { right[c] = vec4f(student[other[c] + d]) * p.student_scale; }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(student[row[r] + d]);
      s[r][0] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
      s[r][1] += vec4f(dot(left, right[4]), dot(left, right[5]), dot(left, right[6]), dot(left, right[7]));
    }
  }
  return s;
}
fn teacher_scores(row: Bases, other: Bases) -> Tile {
  var s: Tile;
  for (var d = 0u; d < p.teacher_quads; d++) {
    var right: array<vec4f, 8>;
    for (var c = 0u; c < 8u; c++) { right[c] = vec4f(teacher[other[c] + d]) * p.teacher_scale; }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(teacher[row[r] + d]);
      s[r][0] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
      s[r][1] += vec4f(dot(left, right[4]), dot(left, right[5]), dot(left, right[6]), dot(left, right[7]));
    }
  }
  return s;
}

// Whether row `i` sees each of the four from `j` on, and whether each of them sees row `i`.
fn seen(i: u32, j: vec4u) -> vec4<bool> {
  return (j < vec4u(p.tokens)) & ((j <= vec4u(i)) | vec4<bool>(p.causal == 0u));
}
fn seen_back(i: u32, j: vec4u) -> vec4<bool> {
  return (j < vec4u(p.tokens)) & ((j >= vec4u(i)) | vec4<bool>(p.causal == 0u));
}
fn four(j: u32) -> vec4u { return vec4u(j, j + 1u, j + 2u, j + 3u); }
fn greatest(a: vec4f, b: vec4f) -> f32 {
  let most = max(a, b);
  return max(max(most.x, most.y), max(most.z, most.w));
}

@compute @workgroup_size(lanes)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let mine = (group.x * lanes + lane) * 8u;
  if (mine >= p.tokens) { return; }
  let row = bases(group, mine, p.student_quads);
  let teacher_row = bases(group, mine, p.teacher_quads);
  var largest: array<vec2f, 8>; // of the student and the teacher
  var total: array<vec2f, 8>;
  var gap: array<f32, 8>; // sum of exp(teacher's score) * (teacher's score - student's)
  for (var r = 0u; r < 8u; r++) { largest[r] = vec2f(none_yet); }
  let end = select(p.tokens, min(mine + 8u, p.tokens), p.causal != 0u);
  for (var j = 0u; j < end; j += 8u) {
    let s = student_scores(row, bases(group, j, p.student_quads));
    let t = teacher_scores(teacher_row, bases(group, j, p.teacher_quads));
    for (var r = 0u; r < 8u; r++) {
      let known = array<vec4<bool>, 2>(seen(mine + r, four(j)), seen(mine + r, four(j + 4u)));
      let s0 = select(vec4f(hidden), s[r][0], known[0]);
      let s1 = select(vec4f(hidden), s[r][1], known[1]);
      let t0 = select(vec4f(hidden), t[r][0], known[0]);
      let t1 = select(vec4f(hidden), t[r][1], known[1]);
      let next = max(largest[r], vec2f(greatest(s0, s1), greatest(t0, t1)));
      let keep = exp(largest[r] - next);
      let a = exp(t0 - next.y);
      let b = exp(t1 - next.y);
      gap[r] = gap[r] * keep.y + dot(a, t0 - s0) + dot(b, t1 - s1);
      total[r] = total[r] * keep + vec2f(dot(exp(s0 - next.x) + exp(s1 - next.x), vec4f(1.0)), dot(a + b, vec4f(1.0)));
      largest[r] = next;
    }
  }
  for (var r = 0u; r < 8u; r++) {
    if (mine + r < p.tokens) {
      let at = (group.z * p.heads + group.y) * p.tokens + mine + r;
      let lse = largest[r] + log(total[r]);
      stats[at] = lse;
      y[at] = gap[r] / total[r].y - lse.y + lse.x;
    }
  }
}

@group(0) @binding(3) var<storage, read> saved: array<vec2f>; // what forward made as stats
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> dstudent: array<vec4<elem>>;

@compute @workgroup_size(lanes)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let parts = (p.student_quads + own - 1u) / own;
  let mine = (group.x / parts * lanes + lane) * 8u;
  if (mine >= p.tokens) { return; }
  let part = group.x % parts * own;
  let width = min(own, p.student_quads - part);
  let row = bases(group, mine, p.student_quads);
  let teacher_row = bases(group, mine, p.teacher_quads);
  let line = (group.z * p.heads + group.y) * p.tokens;
  for (var i = 0u; i < width * 8u; i++) { sums[i * lanes + lane] = vec4f(); }
  for (var j = 0u; j < p.tokens; j += 8u) {
    let other = bases(group, j, p.student_quads);
    let s = student_scores(row, other);
    let t = teacher_scores(teacher_row, bases(group, j, p.teacher_quads));
    var lse: array<array<vec4f, 2>, 2>; // of the rows j: student's and teacher's
    var slope: array<vec4f, 2>;
    for (var half = 0u; half < 2u; half++) {
      for (var c = 0u; c < 4u; c++) {
        let at = line + min(j + half * 4u + c, p.tokens - 1u);
        lse[0][half][c] = saved[at].x;
        lse[1][half][c] = saved[at].y;
        slope[half][c] = dy[at];
      }
    }
    var w: Tile;
    for (var r = 0u; r < 8u; r++) {
      let at = line + min(mine + r, p.tokens - 1u);
      let mean = saved[at];
      let factor = dy[at];
      for (var half = 0u; half < 2u; half++) {
        let there = four(j + half * 4u);
        let forth = factor * (exp(s[r][half] - mean.x) - exp(t[r][half] - mean.y));
        let back = slope[half] * (exp(s[r][half] - lse[0][half]) - exp(t[r][half] - lse[1][half]));
        w[r][half] = select(vec4f(), forth, seen(mine + r, there)) + select(vec4f(), back, seen_back(mine + r, there));
      }
    }
    for (var d = 0u; d < width; d++) {
      var value: array<vec4f, 8>;
      for (var c = 0u; c < 8u; c++) { value[c] = vec4f(student[other[c] + part + d]); }
      let a = mat4x4f(value[0], value[1], value[2], value[3]);
      let b = mat4x4f(value[4], value[5], value[6], value[7]);
      for (var r = 0u; r < 8u; r++) { sums[sum_at(lane, d, r)] += a * w[r][0] + b * w[r][1]; }
    }
  }
  for (var d = 0u; d < width; d++) {
    for (var r = 0u; r < 8u; r++) {
      if (mine + r < p.tokens) { dstudent[row[r] + part + d] = vec4<elem>(sums[sum_at(lane, d, r)] * p.student_scale); }
    }
  }
}
