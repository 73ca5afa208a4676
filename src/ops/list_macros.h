#pragma once
// Preprocessor loops for op_list.inc: SHEAF_EACH(M, a, b, c) -> M(a) M(b) M(c).
#define SHEAF_PARENS ()
#define SHEAF_EXPAND(...) SHEAF_EXPAND2(SHEAF_EXPAND2(SHEAF_EXPAND2(__VA_ARGS__)))
#define SHEAF_EXPAND2(...) SHEAF_EXPAND1(SHEAF_EXPAND1(SHEAF_EXPAND1(__VA_ARGS__)))
#define SHEAF_EXPAND1(...) __VA_ARGS__
#define SHEAF_EACH(macro, ...) __VA_OPT__(SHEAF_EXPAND(SHEAF_EACH_STEP(macro, __VA_ARGS__)))
#define SHEAF_EACH_STEP(macro, first, ...) macro(first) __VA_OPT__(SHEAF_EACH_AGAIN SHEAF_PARENS(macro, __VA_ARGS__))
#define SHEAF_EACH_AGAIN() SHEAF_EACH_STEP
#define SHEAF_UNWRAP(...) __VA_ARGS__

#define SHEAF_OPERAND_PARAM(x) Value x,
#define SHEAF_OPERAND_ARG(x) x,
#define SHEAF_OPERAND_NAME(x) #x,
#define SHEAF_ATTR_PARAM(pair) SHEAF_ATTR_PARAM2 pair
#define SHEAF_ATTR_PARAM2(type, name) type name,
#define SHEAF_ATTR_ARG(pair) SHEAF_ATTR_ARG2 pair
#define SHEAF_ATTR_ARG2(type, name) {#name, Attr(std::move(name))},
#define SHEAF_ATTR_TYPE(pair) SHEAF_ATTR_TYPE2 pair
#define SHEAF_ATTR_TYPE2(type, name) Attr(type{}),
#define SHEAF_ATTR_NAME(pair) SHEAF_ATTR_NAME2 pair
#define SHEAF_ATTR_NAME2(type, name) #name,
