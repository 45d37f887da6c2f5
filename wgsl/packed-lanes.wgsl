// The products of packed.wgsl, whose rows of x or dy the lanes of a subgroup lend each other, as lib/lanes.wgsl says.
//   forward: y = x · weightᵀ        backward: dx = dy · weight        x, dx (m, k)   y, dy (m, n), n a multiple of four
// forward: a lane makes `rows` rows × 4 columns, so that a decoded word serves `rows` rows. backward: a lane has a step of
// 8 columns of `rows` rows. `run` steps of a row share a scale. The _lora entries go on summing over the ranks of an
// update: + thin · upᵀ, or + thin · lower; rank is a multiple of 4.   thin (m, rank) f32   up (n, rank)   lower (rank, k)
import package::lib::elem::elem;
import package::lib::lanes::{lent, rows, loads, Sums};
import package::lib::packed::scale_of;
import package::lib::table::{table_of, eight_by};

struct Params { m: u32, n: u32, k: u32, run: u32, rank: u32, offset: f32 }
@group(0) @binding(0) var<uniform> p: Params;

override across: u32 = 8;

@group(0) @binding(5) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<elem>>;
@group(0) @binding(7) var<storage, read> thin: array<vec4f>;
@group(0) @binding(8) var<storage, read> up: array<vec4<elem>>;

// The rows that this lane loads, times `width`.
fn lent_rows(first: u32, lane: u32, width: u32) -> array<u32, loads> {
  var base: array<u32, loads>;
  for (var i = 0u; i < loads; i++) { base[i] = min(first + lent * i + lane % lent, p.m - 1u) * width; }
  return base;
}

fn four_dots(left: vec4f, right: array<vec4f, 4>) -> vec4f {
  return vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
}

fn base_nt(first: u32, quad: u32, lane: u32) -> Sums {
  let steps = p.k / 8u;
  let table = table_of(lane);
  let x_base = lent_rows(first, lane, 2u * steps);
  let column = 4u * min(quad, p.n / 4u - 1u);
  var sum: Sums;
  for (var begin = 0u; begin < steps; begin += p.run) {
    var scale: array<f32, 4>;
    for (var c = 0u; c < 4u; c++) { scale[c] = scale_of((column + c) * steps + begin, column + c, p.offset); }
    for (var step = begin; step < begin + p.run; step++) {
      var low: array<vec4f, 4>;
      var high: array<vec4f, 4>;
      for (var c = 0u; c < 4u; c++) {
        let values = eight_by(table, (column + c) * steps + step, scale[c]);
        low[c] = values[0];
        high[c] = values[1];
      }
      var left: array<array<vec4f, 2>, loads>;
      for (var i = 0u; i < loads; i++) {
        left[i] = array<vec4f, 2>(vec4f(x[x_base[i] + 2u * step]), vec4f(x[x_base[i] + 2u * step + 1u]));
      }
      for (var r = 0u; r < rows; r++) {
        sum[r] += four_dots(subgroupShuffle(left[r / lent][0], r % lent), low)
          + four_dots(subgroupShuffle(left[r / lent][1], r % lent), high);
      }
    }
  }
  return sum;
}

fn store_y(sum: Sums, first: u32, quad: u32) {
  for (var r = 0u; r < rows; r++) {
    if (p.m > first + r && quad < p.n / 4u) { y[(first + r) * (p.n / 4u) + quad] = vec4<elem>(sum[r]); }
  }
}

@compute @workgroup_size(across)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32,
           @builtin(subgroup_invocation_id) lane: u32) {
  let quad = group.x * across + local;
  store_y(base_nt(group.y * rows, quad, lane), group.y * rows, quad);
}

@compute @workgroup_size(across)
fn forward_lora(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32,
                @builtin(subgroup_invocation_id) lane: u32) {
  let quad = group.x * across + local;
  var sum = base_nt(group.y * rows, quad, lane);
  let width = p.rank / 4u;
  let thin_base = lent_rows(group.y * rows, lane, width);
  for (var q = 0u; q < width; q++) {
    var right: array<vec4f, 4>;
    for (var c = 0u; c < 4u; c++) { right[c] = vec4f(up[(4u * min(quad, p.n / 4u - 1u) + c) * width + q]); }
    var left: array<vec4f, loads>;
    for (var i = 0u; i < loads; i++) { left[i] = thin[thin_base[i] + q]; }
    for (var r = 0u; r < rows; r++) { sum[r] += four_dots(subgroupShuffle(left[r / lent], r % lent), right); }
  }
  store_y(sum, group.y * rows, quad);
}

@group(0) @binding(5) var<storage, read> dy: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read_write> dx: array<vec4<elem>>;
@group(0) @binding(8) var<storage, read> lower: array<vec4<elem>>;

alias Pairs = array<array<vec4f, 2>, rows>;

// Four products are added before they meet the sum: a quarter of the roundings, 2e-6 at n = 14,336.
fn base_nn(first: u32, step: u32, lane: u32) -> Pairs {
  let steps = p.k / 8u;
  let table = table_of(lane);
  let dy_base = lent_rows(first, lane, p.n / 4u);
  let at = min(step, steps - 1u);
  var sum: Pairs;
  for (var q = 0u; q < p.n / 4u; q++) {
    var right: array<array<vec4f, 2>, 4>;
    for (var i = 0u; i < 4u; i++) {
      let place = (4u * q + i) * steps + at;
      right[i] = eight_by(table, place, scale_of(place, 4u * q + i, p.offset));
    }
    var left: array<vec4f, loads>;
    for (var i = 0u; i < loads; i++) { left[i] = vec4f(dy[dy_base[i] + q]); }
    for (var r = 0u; r < rows; r++) {
      let l = subgroupShuffle(left[r / lent], r % lent);
      sum[r][0] += l.x * right[0][0] + l.y * right[1][0] + l.z * right[2][0] + l.w * right[3][0];
      sum[r][1] += l.x * right[0][1] + l.y * right[1][1] + l.z * right[2][1] + l.w * right[3][1];
    }
  }
  return sum;
}

fn store_dx(sum: Pairs, first: u32, step: u32) {
  for (var r = 0u; r < rows; r++) {
    if (p.m > first + r && step < p.k / 8u) {
      dx[(first + r) * (p.k / 4u) + 2u * step] = vec4<elem>(sum[r][0]);
      dx[(first + r) * (p.k / 4u) + 2u * step + 1u] = vec4<elem>(sum[r][1]);
    }
  }
}

@compute @workgroup_size(across)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32,
            @builtin(subgroup_invocation_id) lane: u32) {
  let step = group.x * across + local;
  store_dx(base_nn(group.y * rows, step, lane), group.y * rows, step);
}

@compute @workgroup_size(across)
fn backward_lora(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32,
                 @builtin(subgroup_invocation_id) lane: u32) {
  let step = group.x * across + local;
  var sum = base_nn(group.y * rows, step, lane);
  let thin_base = lent_rows(group.y * rows, lane, p.rank / 4u);
  for (var q = 0u; q < p.rank / 4u; q++) {
    var left: array<vec4f, loads>;
    for (var i = 0u; i < loads; i++) { left[i] = thin[thin_base[i] + q]; }
    var right: array<array<vec4f, 2>, 4>;
    for (var i = 0u; i < 4u; i++) {
      let at = (4u * q + i) * (p.k / 4u) + 2u * min(step, p.k / 8u - 1u);
      right[i] = array<vec4f, 2>(vec4f(lower[at]), vec4f(lower[at + 1u]));
    }
    for (var r = 0u; r < rows; r++) {
      let l = subgroupShuffle(left[r / lent], r % lent);
      sum[r][0] += l.x * right[0][0] + l.y * right[1][0] + l.z * right[2][0] + l.w * right[3][0];
      sum[r][1] += l.x * right[0][1] + l.y * right[1][1] + l.z * right[2][1] + l.w * right[3][1];
    }
  }
  store_dx(sum, group.y * rows, step);
}
