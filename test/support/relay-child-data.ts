// The same program under the name by which it tells which child it is.
import './relay-child.ts';
