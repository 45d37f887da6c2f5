// y = a · b with tiles in registers whose rows of a the lanes of a subgroup lend each other, as lib/lanes.wgsl says.
//   plain: y = a · b      onto: y = base + alpha · (a · b)      split: sums over parts of k, for split-sum.wgsl
// A lane makes `rows` rows × 4 columns; the lanes of a workgroup lie side by side. n is a multiple of four, and so is k but
// where a is transposed. Loads past the ragged end are clamped and thrown away. Sums of at most 256 of k are added up first
// and then to the total, so that the error does not grow with k.
import package::lib::elem::elem;
import package::lib::lanes::{lent, rows, loads, held, Sums};
import package::lib::activation::activated;
import package::lib::product::{p, a, b, a_transposed, b_transposed, activation, range_of};

@group(0) @binding(3) var<storage, read_write> y: array<vec4<elem>>;
@group(0) @binding(4) var<storage, read> base: array<vec4<elem>>;
@group(0) @binding(3) var<storage, read_write> parts: array<vec4f>;

override across: u32 = 8;
const span = 64u; // vec4s of k that are added up before they meet the total

struct Place { row: u32, quad: u32, batch: u32, split: u32 }

fn place_of(group: vec3u, local: u32) -> Place {
  return Place(group.y * rows, group.x * across + local, group.z / p.splits, group.z % p.splits);
}

fn sum_of(t: Place, lane: u32, range: vec2u) -> Sums {
  let width = p.n / 4u;
  let depth = p.k / 4u;
  let quad = min(t.quad, width - 1u);
  var a_base: array<u32, loads>;
  for (var i = 0u; i < loads; i++) {
    a_base[i] = t.batch * p.a_stride + min(t.row + lent * i + lane % lent, p.m - 1u) * depth;
  }
  if (a_transposed != 0u) { a_base[0] = t.batch * p.a_stride + min(t.row / 4u + lane % (rows / 4u), p.m / 4u - 1u); }
  var b_base: array<u32, 4>;
  for (var c = 0u; c < 4u; c++) {
    b_base[c] = t.batch * p.b_stride + select(quad, min(4u * quad + c, p.n - 1u) * depth, b_transposed != 0u);
  }
  let end = (range.y + 3u) / 4u;
  var total: Sums;
  var sum: Sums;
  for (var first = range.x / 4u; first < end; first += span) {
    for (var k = first; k < min(first + span, end); k++) {
      var right: array<vec4f, 4>; // four of k of each column, or four columns of each k
      var left: array<vec4f, held>; // four of k of each row, or four rows of each k
      for (var i = 0u; i < 4u; i++) {
        let at = select((4u * k + i) * width, k, b_transposed != 0u);
        if (a_transposed == 0u) {
          right[i] = vec4f(b[b_base[i] + at]);
        } else {
          let row = min(4u * k + i, p.k - 1u);
          right[i] = vec4f(b[b_base[i] + row * width]);
          left[i] = select(vec4f(), vec4f(a[a_base[0] + row * (p.m / 4u)]), vec4<bool>(p.k > 4u * k + i));
        }
      }
      if (a_transposed == 0u) {
        for (var i = 0u; i < loads; i++) { left[i] = vec4f(a[a_base[i] + k]); }
      }
      for (var r = 0u; r < rows; r++) {
        var l: vec4f;
        if (a_transposed == 0u) {
          l = subgroupShuffle(left[r / lent], r % lent);
        } else {
          for (var i = 0u; i < 4u; i++) { l[i] = subgroupShuffle(left[i][r % 4u], r / 4u); }
        }
        if (b_transposed != 0u) {
          sum[r] += vec4f(dot(l, right[0]), dot(l, right[1]), dot(l, right[2]), dot(l, right[3]));
        } else {
          sum[r] += l.x * right[0] + l.y * right[1] + l.z * right[2] + l.w * right[3];
        }
      }
    }
    for (var r = 0u; r < rows; r++) {
      total[r] += sum[r];
      sum[r] = vec4f();
    }
  }
  return total;
}

fn ended(v: vec4f) -> vec4f {
  if (activation == 0u) { return v; }
  return vec4f(activated(activation, v.x), activated(activation, v.y), activated(activation, v.z), activated(activation, v.w));
}

@compute @workgroup_size(across)
fn plain(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32,
         @builtin(subgroup_invocation_id) lane: u32) {
  let t = place_of(group, local);
  let sum = sum_of(t, lane, range_of(group));
  for (var r = 0u; r < rows; r++) {
    if (p.m > t.row + r && t.quad < p.n / 4u) {
      y[(t.batch * p.m + t.row + r) * (p.n / 4u) + t.quad] = vec4<elem>(ended(p.alpha * sum[r]));
    }
  }
}

// base_row is 0 where one row of base serves all rows.
@compute @workgroup_size(across)
fn onto(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
  let t = place_of(group, local);
  let sum = sum_of(t, lane, range_of(group));
  for (var r = 0u; r < rows; r++) {
    if (p.m > t.row + r && t.quad < p.n / 4u) {
      let from_base = vec4f(base[(t.batch * p.base_stride + (t.row + r) * p.base_row) / 4u + t.quad]);
      y[(t.batch * p.m + t.row + r) * (p.n / 4u) + t.quad] = vec4<elem>(ended(from_base + p.alpha * sum[r]));
    }
  }
}

// parts (batch, splits, m, n)
@compute @workgroup_size(across)
fn split(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32,
         @builtin(subgroup_invocation_id) lane: u32) {
  let t = place_of(group, local);
  let sum = sum_of(t, lane, range_of(group));
  for (var r = 0u; r < rows; r++) {
    if (p.m > t.row + r && t.quad < p.n / 4u) {
      parts[((t.batch * p.splits + t.split) * p.m + t.row + r) * (p.n / 4u) + t.quad] = sum[r];
    }
  }
}
