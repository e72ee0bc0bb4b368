const greet = require('greet');
console.log(greet(process.env.NODE_ENV), process.getuid(), process.cwd());
