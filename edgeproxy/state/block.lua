-- Refuses whatever is asked for a key, or (ARGV[1] = 0) ends that. KEYS[1]: its string; ARGV[1]: microseconds.
-- What the key was charged is kept, for as long as it would have been.
local value, ttl = redis.call('GET', KEYS[1]), tonumber(ARGV[1])
local life = max(0, redis.call('PTTL', KEYS[1]))
read(1, value)
why[1], untils[1] = ttl > 0 and 2 or 0, ttl > 0 and now + ttl or 0
if kinds[1] == NONE and ttl == 0 then
  return redis.call('DEL', KEYS[1])
end
life = max(life, ceil(ttl / 1000) + 1000)
value = struct.pack(FORMAT, why[1], kinds[1], untils[1], ats[1], used[1], before[1])
redis.call('SET', KEYS[1], value, 'PX', text(life))
return 1
