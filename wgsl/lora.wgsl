// Products of a low-rank update, one side of them thin: rank r, some multiple of 4, as are k and n.  Thin matrices are f32.
//   narrow_nt:       thin = factor · x · aᵀ       x (m, k)   a (r, k)         thin (m, r), summed over the long k
//   backward_narrow: thin = factor · dy · b       dy (m, n)  b (n, r)
//   widen_nt:        y = base + thin · bᵀ         base, y (m, n)              summed over the short r
//   backward_widen:  dx = base + thin · a         base, dx (m, k)             without a base where has_base is 0
// Long sums are cut into slices of `each` vec4, summed apart and added in order by column-sum.wgsl: always the same order,
// and no atomics. An invocation makes 8 rows × 4 columns from vec4 loads.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { m: u32, rank: u32, wide: u32, each: u32, factor: f32 } // wide: k or n
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> pair: array<vec4<elem>>; // a or b
@group(0) @binding(3) var<storage, read_write> sums: array<vec4f>;

override has_base: u32 = 1;

// The block of 8 rows and the four columns of an invocation, in a matrix `quads` vec4 wide.
fn place(group: vec3u, groups: vec3u, lane: u32, quads: u32) -> vec2u {
  let i = flat_workgroup(group, groups) * 64u + lane;
  return vec2u(i / quads * 8u, i % quads);
}

@compute @workgroup_size(64)
fn narrow_nt(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
             @builtin(local_invocation_index) lane: u32) {
  let at = place(group, groups, lane, p.rank / 4u);
  if (at.x >= p.m) { return; }
  let width = p.wide / 4u;
  var sum: array<vec4f, 8>;
  for (var q = group.z * p.each; q < min(width, (group.z + 1u) * p.each); q++) {
    var right: array<vec4f, 4>;
    for (var c = 0u; c < 4u; c++) { right[c] = vec4f(pair[(4u * at.y + c) * width + q]); }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(x[min(at.x + r, p.m - 1u) * width + q]);
      sum[r] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
    }
  }
  for (var r = 0u; r < 8u; r++) {
    if (at.x + r < p.m) { sums[(group.z * p.m + at.x + r) * (p.rank / 4u) + at.y] = p.factor * sum[r]; }
  }
}

@compute @workgroup_size(64)
fn backward_narrow(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
             @builtin(local_invocation_index) lane: u32) {
  let at = place(group, groups, lane, p.rank / 4u);
  if (at.x >= p.m) { return; }
  let width = p.wide / 4u;
  var sum: array<vec4f, 8>;
  for (var q = group.z * p.each; q < min(width, (group.z + 1u) * p.each); q++) {
    var right: array<vec4f, 4>;
    for (var i = 0u; i < 4u; i++) { right[i] = vec4f(pair[(4u * q + i) * (p.rank / 4u) + at.y]); }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(x[min(at.x + r, p.m - 1u) * width + q]);
      sum[r] += left.x * right[0] + left.y * right[1] + left.z * right[2] + left.w * right[3];
    }
  }
  for (var r = 0u; r < 8u; r++) {
    if (at.x + r < p.m) { sums[(group.z * p.m + at.x + r) * (p.rank / 4u) + at.y] = p.factor * sum[r]; }
  }
}

@group(0) @binding(3) var<storage, read> thin: array<vec4f>;
@group(0) @binding(4) var<storage, read> base: array<vec4<elem>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<elem>>;

fn store(sum: array<vec4f, 8>, at: vec2u) {
  for (var r = 0u; r < 8u; r++) {
    if (at.x + r < p.m) {
      let i = (at.x + r) * (p.wide / 4u) + at.y;
      var total = sum[r];
      if (has_base == 1u) { total += vec4f(base[i]); }
      y[i] = vec4<elem>(total);
    }
  }
}

@compute @workgroup_size(64)
fn widen_nt(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let at = place(group, groups, lane, p.wide / 4u);
  if (at.x >= p.m) { return; }
  let width = p.rank / 4u;
  var sum: array<vec4f, 8>;
  for (var q = 0u; q < width; q++) {
    var right: array<vec4f, 4>;
    for (var c = 0u; c < 4u; c++) { right[c] = vec4f(pair[(4u * at.y + c) * width + q]); }
    for (var r = 0u; r < 8u; r++) {
      let left = thin[min(at.x + r, p.m - 1u) * width + q];
      sum[r] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
    }
  }
  store(sum, at);
}

@compute @workgroup_size(64)
fn backward_widen(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let at = place(group, groups, lane, p.wide / 4u);
  if (at.x >= p.m) { return; }
  var sum: array<vec4f, 8>;
  for (var q = 0u; q < p.rank / 4u; q++) {
    var right: array<vec4f, 4>;
    for (var i = 0u; i < 4u; i++) { right[i] = vec4f(pair[(4u * q + i) * (p.wide / 4u) + at.y]); }
    for (var r = 0u; r < 8u; r++) {
      let left = thin[min(at.x + r, p.m - 1u) * (p.rank / 4u) + q];
      sum[r] += left.x * right[0] + left.y * right[1] + left.z * right[2] + left.w * right[3];
    }
  }
  store(sum, at);
}
