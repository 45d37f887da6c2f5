// y = x, element by element: puts a result into a window of a larger tensor.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { size: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { y[i] = x[i]; }
}

// The same from f32 to the storage type, and back.
@group(0) @binding(1) var<storage, read> wide: array<f32>;
@compute @workgroup_size(64)
fn narrow(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { y[i] = elem(wide[i]); }
}

@group(0) @binding(2) var<storage, read_write> widened: array<f32>;
@compute @workgroup_size(64)
fn widen(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { widened[i] = f32(x[i]); }
}
