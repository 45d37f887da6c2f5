// The storage type of activations and weights. Kernels read it, compute in f32, and round once when they store.
@if(f16) alias elem = f16;
@if(!f16) alias elem = f32;
