// AdamW with decoupled weight decay and the norm of all gradients clipped on the GPU.
//   m = b1 m + (1-b1) g      v = b2 v + (1-b2) g²      w = w (1 - lr·decay) - lr · (m / c1) / (sqrt(v / c2) + eps)
// g is the gradient times clip[0]. square_sum writes the shares of the squared norm, clip_factor adds them up.
// Gradient, weight and moments are counted in parts.
import package::lib::part::{part, wide, total};
import package::lib::map::my_parts;
import package::lib::reduce::sum_workgroup;

struct Params { size: u32, beta1: f32, beta2: f32, eps: f32, decay: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gradient: array<part>;
@group(0) @binding(2) var<storage, read> clip: array<f32>;
@group(0) @binding(3) var<storage, read_write> weight: array<part>;
@group(0) @binding(4) var<storage, read_write> m: array<wide>;
@group(0) @binding(5) var<storage, read_write> v: array<wide>;
@group(0) @binding(6) var<storage, read> rates: array<f32>; // lr, c1, c2: they change from step to step

@compute @workgroup_size(256)
fn update(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) {
    let g = wide(gradient[i]) * clip[0];
    let mean = p.beta1 * m[i] + (1.0 - p.beta1) * g;
    let square = p.beta2 * v[i] + (1.0 - p.beta2) * g * g;
    m[i] = mean;
    v[i] = square;
    let change = rates[0] * (mean / rates[1]) / (sqrt(square / rates[2]) + p.eps);
    weight[i] = part(wide(weight[i]) * (1.0 - rates[0] * p.decay) - change);
  }
}

// shares[offset + group] = sum of the squares of this workgroup's runs of 64 parts, in a fixed order
struct SumParams { size: u32, offset: u32 }
@group(0) @binding(0) var<uniform> s: SumParams;
@group(0) @binding(2) var<storage, read_write> shares: array<f32>;

@compute @workgroup_size(64)
fn square_sum(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
              @builtin(local_invocation_index) lane: u32) {
  var sum = wide();
  for (var i = group.x * 64u + lane; i < s.size; i += groups.x * 64u) {
    let g = wide(gradient[i]);
    sum += g * g;
  }
  let all = sum_workgroup(lane, total(sum));
  if (lane == 0u) { shares[s.offset + group.x] = all; }
}

// clip = (min(1, largest / norm), norm); largest 0 means no clipping
struct ClipParams { count: u32, largest: f32 }
@group(0) @binding(0) var<uniform> c: ClipParams;
@group(0) @binding(1) var<storage, read> squares: array<f32>;
@group(0) @binding(2) var<storage, read_write> factor: array<f32>;

@compute @workgroup_size(64)
fn clip_factor(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < c.count; i += 64u) { sum += squares[i]; }
  let norm = sqrt(sum_workgroup(lane, sum));
  if (lane == 0u) {
    factor[0] = select(1.0, min(1.0, c.largest / max(norm, 1e-30)), c.largest > 0.0);
    factor[1] = norm;
  }
}
