/**
 * Node's HTTP, taken past the module loader. `import` from `node:http` reads all that it exports, and one of those is a
 * WebSocket that brings a whole HTTP library of Node's own with it: tens of milliseconds of every start.
 */
export const http = process.getBuiltinModule('node:http');
