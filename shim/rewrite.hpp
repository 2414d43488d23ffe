/* From the methods of a loaded program to code with its weights in place. */
#ifndef FI_SHIM_REWRITE_HPP
#define FI_SHIM_REWRITE_HPP

#include "net.hpp"

namespace featinv {

/* Fills program.methods from program.module and net.weights, packing where the net packs. Weights
 * that no other program waits for are dropped from the net: code holds what it needs. */
void lower_program(fi_net &net, Program &program);

/* The same for training: code reads the weights out of the module, which shares them with
 * net.weights, and nothing is replaced by constants. */
void keep_program(fi_net &net, Program &program);

} // namespace featinv

#endif
