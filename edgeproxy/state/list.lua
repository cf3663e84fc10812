-- A list of entries that nodes share, each until a time. KEYS[1]: a hash of entries (field: name, value: `until:content`), and
-- of `#epoch` and `#version`, its name and how often it was changed.
-- ARGV: a name if it has none; the name and the version that the caller knows; its ttl in ms when it was changed; then
-- triples of a change: field, microseconds that the entry holds (0: it is taken away), content.
-- Answers: name, version; and where the caller does not know them: now, then field and value of each entry.
local hash = KEYS[1]
local known = redis.call('HMGET', hash, '#epoch', '#version')
local epoch, version = known[1], known[2]
local changed = #ARGV > 4
if not epoch then
  epoch, version = ARGV[1], '0'
  redis.call('HSET', hash, '#epoch', epoch, '#version', version)
  redis.call('PEXPIRE', hash, ARGV[4])
end
for i = 5, #ARGV, 3 do
  local ttl = tonumber(ARGV[i + 1])
  if ttl > 0 then
    redis.call('HSET', hash, ARGV[i], text(now + ttl) .. ':' .. ARGV[i + 2])
  else
    redis.call('HDEL', hash, ARGV[i])
  end
end
if changed then
  version = text(tonumber(version) + 1)
  redis.call('HSET', hash, '#version', version)
  redis.call('PEXPIRE', hash, ARGV[4])
end
if not changed and epoch == ARGV[2] and version == ARGV[3] then
  return {epoch, version}
end
local answer = {epoch, version, text(now)}
local all = redis.call('HGETALL', hash)
for i = 1, #all, 2 do
  local name, value = all[i], all[i + 1]
  if string.sub(name, 1, 1) ~= '#' then
    if tonumber(string.match(value, '^%d+') or 0) > now then
      answer[#answer + 1] = name
      answer[#answer + 1] = value
    else
      redis.call('HDEL', hash, name)
    end
  end
end
return answer
